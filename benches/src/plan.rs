// SPDX-License-Identifier: MIT OR Apache-2.0

//! The plan of a benchmark: the cases to measure, and the transports in each case.

use crate::{
    case::{Case, Mode, Reading, Size},
    options::{BenchOptions, Part},
    transport::Transport::{self, Fakesink, Futex, Iceoryx2, Memcpy, Rsshm, RsshmLossless, Shm, Tcp, Unixfd},
};

const ALL_TRANSPORTS: [Transport; 9] = [
    Fakesink,
    Futex,
    Memcpy,
    Rsshm,
    RsshmLossless,
    Shm,
    Unixfd,
    Iceoryx2,
    Tcp,
];
/// The transports for cases with many readers, because measuring all transports in these cases would take too long.
const FEW_TRANSPORTS: [Transport; 6] = [Fakesink, Futex, Rsshm, Shm, Unixfd, Iceoryx2];
/// The transports that lose no frame, and fakesink and memcpy for comparison.
const UNTHROTTLED_TRANSPORTS: [Transport; 6] = [Fakesink, Memcpy, RsshmLossless, Shm, Unixfd, Iceoryx2];
/// The transports for one copy of each frame at a rate.
const COPYING_TRANSPORTS: [Transport; 6] = [Fakesink, Memcpy, Rsshm, Shm, Unixfd, Iceoryx2];

/// The transports that pass descriptors on, and fakesink for comparison.
const DESCRIPTOR_TRANSPORTS: [Transport; 3] = [Fakesink, Rsshm, Unixfd];
const UNTHROTTLED_DESCRIPTOR_TRANSPORTS: [Transport; 3] = [Fakesink, RsshmLossless, Unixfd];

/// A case, and the transports that are measured in it.
pub struct PlannedCase {
    pub case: Case,
    pub transports: Vec<Transport>,
}

/// The cases that the options choose.
pub fn plan(options: &BenchOptions) -> Vec<PlannedCase> {
    if options.only == Some(Part::Bursts) {
        return Vec::new();
    }
    let cases = match (options.full, options.chooses_frames()) {
        (true, _) => full(),
        (false, true) => {
            let usual = Case::USUAL;
            let cases = combinations(
                &or_default(&options.sizes, usual.size),
                &or_default(&options.modes, usual.mode),
                &or_default(&options.rates, usual.rate),
                &or_default(&options.readers, usual.readers),
            );
            let reading = or_default(&options.reading, usual.reading);
            let with_reading = |(case, transports): &(Case, _)| {
                reading
                    .iter()
                    .map(|reading| {
                        (
                            Case {
                                reading: *reading,
                                ..*case
                            },
                            *transports,
                        )
                    })
                    .collect::<Cases>()
            };
            let mut cases: Cases = cases.iter().flat_map(with_reading).collect();
            if options.tools {
                cases = cases.into_iter().flat_map(|(case, _)| beside_tools(case)).collect();
            }
            cases
        }
        (false, false) => usual(),
    };
    let mut planned = Vec::new();
    for (case, transports) in cases {
        let is_wanted = |transport: &&Transport| options.wants(**transport) && transport.supports(case);
        let transports: Vec<_> = transports.iter().filter(is_wanted).copied().collect();
        if transports.is_empty() {
            continue;
        }
        // Two parts of the plan may have the same case.
        match planned
            .iter_mut()
            .find(|planned: &&mut PlannedCase| planned.case == case)
        {
            Some(planned) => planned.transports.extend(
                transports
                    .into_iter()
                    .filter(|transport| !planned.transports.contains(transport))
                    .collect::<Vec<_>>(),
            ),
            None => planned.push(PlannedCase { case, transports }),
        }
    }
    planned
}

/// The values that the user has chosen. If there are none, the default.
fn or_default<T: Clone>(chosen: &[T], default: T) -> Vec<T> {
    if chosen.is_empty() {
        vec![default]
    } else {
        chosen.to_vec()
    }
}

type Cases = Vec<(Case, &'static [Transport])>;

/// All combinations of these values, each with all transports.
fn combinations(sizes: &[Size], modes: &[Mode], rates: &[u32], readers: &[u32]) -> Cases {
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
                    ..Case::USUAL
                },
                &ALL_TRANSPORTS,
            ));
        }
    }
    cases
}

const ALL_SIZES: [Size; 3] = [Size::Hd, Size::FullHd, Size::UltraHd];
const ALL_MODES: [Mode; 2] = [Mode::InPlace, Mode::Foreign];

fn usual() -> Cases {
    let mut cases: Cases = vec![
        (Case::USUAL, &ALL_TRANSPORTS),
        (
            Case {
                mode: Mode::Foreign,
                ..Case::USUAL
            },
            &COPYING_TRANSPORTS,
        ),
        (
            Case {
                rate: 240,
                ..Case::USUAL
            },
            &FEW_TRANSPORTS,
        ),
    ];
    for (case, _) in combinations(&ALL_SIZES, &ALL_MODES, &[0], &[1]) {
        cases.push((case, &UNTHROTTLED_TRANSPORTS));
    }
    for readers in [4, 8, 16, 64] {
        let case = Case { readers, ..Case::USUAL };
        cases.push((case, &FEW_TRANSPORTS));
    }
    cases.extend(other_readings());
    cases.extend(beside_tools(Case {
        readers: 2,
        ..Case::USUAL
    }));
    // Before this version there is no unixfdsink to compare with.
    if gst::version() >= (1, 24, 0, 0) {
        cases.extend(by_descriptor());
    }
    cases
}

/// Readers that read few bytes of frames that were drawn in place, and readers that read every byte of frames that were
/// copied once.
fn other_readings() -> Cases {
    let few = Case {
        reading: Reading::Few,
        ..Case::USUAL
    };
    let all = Case {
        reading: Reading::All,
        mode: Mode::Foreign,
        ..Case::USUAL
    };
    let mut cases: Cases = vec![
        (few, &FEW_TRANSPORTS),
        (Case { rate: 0, ..few }, &UNTHROTTLED_TRANSPORTS),
        (all, &COPYING_TRANSPORTS),
    ];
    for size in ALL_SIZES {
        cases.push((Case { size, rate: 0, ..all }, &UNTHROTTLED_TRANSPORTS));
    }
    cases
}

/// Frames in memfds of the producer. Only the transports that pass descriptors on are measured.
fn by_descriptor() -> Cases {
    let few = Case {
        mode: Mode::Descriptor,
        reading: Reading::Few,
        ..Case::USUAL
    };
    let sizes = [Size::FullHd, Size::UltraHd];
    let mut cases = Cases::new();
    for readers in [1, 8] {
        cases.extend(sizes.map(|size| (Case { size, readers, ..few }, &DESCRIPTOR_TRANSPORTS as &[_])));
    }
    // Here each frame is checked.
    let words = Case {
        reading: Reading::Words,
        ..few
    };
    for case in [few, words] {
        cases.extend(sizes.map(|size| {
            (
                Case { size, rate: 0, ..case },
                &UNTHROTTLED_DESCRIPTOR_TRANSPORTS as &[_],
            )
        }));
    }
    cases.extend(sizes.map(|size| (Case { size, ..words }, &DESCRIPTOR_TRANSPORTS as &[_])));
    cases
}

/// The case without and with the command line tools.
fn beside_tools(case: Case) -> Cases {
    let with_tools = |tools| (Case { tools, ..case }, &[Rsshm] as &[Transport]);
    vec![with_tools(false), with_tools(true)]
}

fn full() -> Cases {
    let mut cases = combinations(&ALL_SIZES, &ALL_MODES, &[30, 60, 240, 0], &[1]);
    cases.extend(combinations(
        &[Size::FullHd],
        &[Mode::InPlace],
        &[60, 240],
        &[2, 4, 8, 16, 64],
    ));
    cases.extend(other_readings());
    cases.extend(beside_tools(Case {
        readers: 2,
        ..Case::USUAL
    }));
    cases.extend(by_descriptor());
    cases
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::Options;

    fn plan_of(arguments: &[&str]) -> Vec<PlannedCase> {
        let arguments = std::iter::once(&"bench").chain(arguments);
        plan(&Options::parse_from(arguments).bench)
    }

    #[test]
    fn choices_are_combined_with_defaults() {
        let planned = plan_of(&[
            "--sizes",
            "720p,4k",
            "--readers",
            "1,4",
            "--transports",
            "rsshm,fakesink",
        ]);
        let cases: Vec<_> = planned
            .iter()
            .map(|planned| (planned.case.size, planned.case.readers, planned.transports.len()))
            .collect();
        let sizes = [Size::Hd, Size::UltraHd];
        assert_eq!(cases, sizes.map(|size| [(size, 1, 2), (size, 4, 2)]).concat());
        assert!(
            planned
                .iter()
                .all(|planned| planned.case.rate == 60 && planned.case.mode == Mode::InPlace)
        );
    }

    #[test]
    fn usual_plan_has_each_case_once() {
        for arguments in [&[][..], &["--full"]] {
            let planned = plan_of(arguments);
            for (index, case) in planned.iter().enumerate() {
                assert!(
                    planned[..index].iter().all(|other| other.case != case.case),
                    "{}",
                    case.case
                );
            }
            for reading in [Reading::Few, Reading::All] {
                assert!(planned.iter().any(|planned| planned.case.reading == reading));
            }
        }
    }

    #[test]
    fn tools_run_beside_rsshm_only() {
        let planned = plan_of(&["--tools", "--readers", "2"]);
        let tools: Vec<_> = planned.iter().map(|planned| planned.case.tools).collect();
        assert_eq!(tools, [false, true]);
        assert!(planned.iter().all(|planned| planned.transports == [Rsshm]));
    }

    #[test]
    fn unthrottled_case_has_only_transports_that_keep_every_frame() {
        let planned = plan_of(&["--rates", "0"]);
        let transports = &planned[0].transports;
        assert!(transports.contains(&RsshmLossless) && transports.contains(&Shm));
        assert!(!transports.contains(&Rsshm) && !transports.contains(&Futex) && !transports.contains(&Tcp));
    }
}
