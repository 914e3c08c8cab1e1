//! Which cases, and in each of them which ways.

use crate::{
    case::{Case, Mode, Size},
    options::BenchOptions,
    transport::Transport::{self, Fakesink, Futex, Memcpy, Rsshm, RsshmLossless, Shm, Tcp, Unixfd},
};

const ALL: [Transport; 8] = [Fakesink, Futex, Memcpy, Rsshm, RsshmLossless, Shm, Unixfd, Tcp];
/// Where it would take too long to try all.
const FEW: [Transport; 4] = [Fakesink, Futex, Rsshm, Shm];
const UNTHROTTLED: [Transport; 5] = [Fakesink, Memcpy, RsshmLossless, Shm, Unixfd];

pub struct Entry {
    pub case: Case,
    pub transports: Vec<Transport>,
}

pub fn plan(options: &BenchOptions) -> Vec<Entry> {
    let chosen = !(options.sizes.is_empty()
        && options.modes.is_empty()
        && options.rates.is_empty()
        && options.readers.is_empty());
    let cases = match (options.full, chosen) {
        (true, _) => full(),
        (false, true) => {
            let readers = or(&options.readers, &[1]);
            product(
                &or(&options.sizes, &[Size::FullHd]),
                &or(&options.modes, &[Mode::InPlace]),
                &or(&options.rates, &[60]),
                &readers,
            )
        }
        (false, false) => usual(),
    };
    let mut entries: Vec<Entry> = Vec::new();
    for (case, transports) in cases {
        let wanted = |transport: &&Transport| {
            (options.transports.is_empty() || options.transports.contains(transport)) && transport.suits(case)
        };
        let transports: Vec<_> = transports.iter().filter(wanted).copied().collect();
        if !transports.is_empty() {
            entries.push(Entry { case, transports });
        }
    }
    entries
}

fn or<T: Clone>(chosen: &[T], otherwise: &[T]) -> Vec<T> {
    if chosen.is_empty() { otherwise } else { chosen }.to_vec()
}

type Cases = Vec<(Case, &'static [Transport])>;

fn product(sizes: &[Size], modes: &[Mode], rates: &[u32], readers: &[u32]) -> Cases {
    let mut cases = Cases::new();
    for (&size, &mode) in sizes.iter().flat_map(|size| modes.iter().map(move |mode| (size, mode))) {
        for (&rate, &readers) in rates
            .iter()
            .flat_map(|rate| readers.iter().map(move |readers| (rate, readers)))
        {
            cases.push((
                Case {
                    size,
                    mode,
                    rate,
                    readers,
                },
                &ALL,
            ));
        }
    }
    cases
}

const SIZES: [Size; 3] = [Size::Hd, Size::FullHd, Size::UltraHd];
const MODES: [Mode; 2] = [Mode::InPlace, Mode::Foreign];

fn usual() -> Cases {
    let mut cases: Cases = vec![
        (Case::USUAL, &ALL),
        (
            Case {
                mode: Mode::Foreign,
                ..Case::USUAL
            },
            &[Fakesink, Memcpy, Rsshm, Shm, Unixfd],
        ),
        (
            Case {
                rate: 240,
                ..Case::USUAL
            },
            &[Fakesink, Futex, Rsshm, Shm, Unixfd],
        ),
    ];
    for (case, _) in product(&SIZES, &MODES, &[0], &[1]) {
        cases.push((case, &UNTHROTTLED));
    }
    for readers in [4, 16, 64] {
        let case = Case { readers, ..Case::USUAL };
        cases.push((case, &FEW));
    }
    cases
}

fn full() -> Cases {
    let mut cases = product(&SIZES, &MODES, &[30, 60, 240, 0], &[1]);
    cases.extend(product(
        &[Size::FullHd],
        &[Mode::InPlace],
        &[60, 240],
        &[2, 4, 8, 16, 64],
    ));
    cases
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::Options;

    fn planned(arguments: &[&str]) -> Vec<Entry> {
        let arguments = std::iter::once(&"bench").chain(arguments);
        plan(&Options::parse_from(arguments).bench)
    }

    #[test]
    fn what_is_chosen_is_combined_with_the_usual() {
        let entries = planned(&[
            "--sizes",
            "720p,4k",
            "--readers",
            "1,4",
            "--transports",
            "rsshm,fakesink",
        ]);
        let cases: Vec<_> = entries
            .iter()
            .map(|entry| (entry.case.size, entry.case.readers, entry.transports.len()))
            .collect();
        let sizes = [Size::Hd, Size::UltraHd];
        assert_eq!(cases, sizes.map(|size| [(size, 1, 2), (size, 4, 2)]).concat());
        assert!(
            entries
                .iter()
                .all(|entry| entry.case.rate == 60 && entry.case.mode == Mode::InPlace)
        );
    }

    #[test]
    fn as_fast_as_can_be_only_what_keeps_every_frame() {
        let entries = planned(&["--rates", "0"]);
        let transports = &entries[0].transports;
        assert!(transports.contains(&RsshmLossless) && transports.contains(&Shm));
        assert!(!transports.contains(&Rsshm) && !transports.contains(&Futex) && !transports.contains(&Tcp));
    }
}
