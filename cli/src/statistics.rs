// SPDX-License-Identifier: MIT OR Apache-2.0

//! The statistics of the newest samples.

use std::collections::VecDeque;

/// The newest samples, at most as many as the window has.
#[derive(Debug)]
pub(crate) struct Window {
    size: usize,
    samples: VecDeque<f64>,
}

/// The statistics of some samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Statistics {
    pub(crate) count: usize,
    pub(crate) mean: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// The standard deviation of the samples themselves, divided by their number.
    pub(crate) std_dev: f64,
}

impl Window {
    /// A window of at most `size` samples.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            size,
            samples: VecDeque::new(),
        }
    }

    pub(crate) fn push(&mut self, sample: f64) {
        if self.samples.len() >= self.size {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    pub(crate) fn first(&self) -> Option<f64> {
        self.samples.front().copied()
    }

    /// The statistics of the samples; `None` if there are none.
    pub(crate) fn statistics(&self) -> Option<Statistics> {
        let count = self.samples.len();
        if count == 0 {
            return None;
        }
        let mean = self.samples.iter().sum::<f64>() / count as f64;
        let variance = self.samples.iter().map(|sample| (sample - mean).powi(2)).sum::<f64>() / count as f64;
        Some(Statistics {
            count,
            mean,
            min: self.samples.iter().copied().fold(f64::INFINITY, f64::min),
            max: self.samples.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            std_dev: variance.sqrt(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_those_of_the_newest_samples() {
        let mut window = Window::new(4);
        assert_eq!(window.statistics(), None);
        for sample in [100.0, 2.0, 4.0, 4.0, 6.0] {
            window.push(sample);
        }
        let found = window.statistics().unwrap();
        assert_eq!((found.count, found.mean, found.min, found.max), (4, 4.0, 2.0, 6.0));
        assert!((found.std_dev - 2.0_f64.sqrt()).abs() < 1e-12);
        assert_eq!(window.first(), Some(2.0));
    }
}
