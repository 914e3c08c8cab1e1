// SPDX-License-Identifier: MIT OR Apache-2.0

//! Atomics of loom that note where an order is stated, and that can weaken one of these orders.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    panic::Location,
};

use loom::sync::atomic as real;
pub(crate) use loom::sync::atomic::Ordering;

/// A place in the crate's files where an order is stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Site {
    pub(crate) file: &'static str,
    pub(crate) line: u32,
}

/// What happens to the order at a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weakening {
    /// An access becomes relaxed, a fence is left out.
    Nothing,
    /// Only acquire is left of acquire and release.
    Acquire,
    /// Only release is left of acquire and release.
    Release,
    /// A full fence only acquires and releases.
    AcqRel,
}

thread_local! {
    static WEAK: Cell<Option<(Site, Weakening)>> = const { Cell::new(None) };
    static SEEN: RefCell<BTreeSet<(Site, Weakening)>> = const { RefCell::new(BTreeSet::new()) };
}

pub(crate) fn weaken(site: Option<(Site, Weakening)>) {
    WEAK.set(site);
}

/// All weakenings of the sites that models have passed on this thread.
pub(crate) fn seen() -> BTreeSet<(Site, Weakening)> {
    SEEN.take()
}

/// The order of the caller's access; `None` for no order at all.
#[track_caller]
fn order(stated: Ordering) -> Option<Ordering> {
    let place = Location::caller();
    let site = Site {
        file: place.file(),
        line: place.line(),
    };
    let weakenings: &[Weakening] = match stated {
        Ordering::Relaxed => return None,
        Ordering::AcqRel => &[Weakening::Acquire, Weakening::Release],
        Ordering::SeqCst => &[Weakening::AcqRel],
        _ => &[Weakening::Nothing],
    };
    if site.file.contains("src/") {
        SEEN.with_borrow_mut(|seen| seen.extend(weakenings.iter().map(|weakening| (site, *weakening))));
    }
    match WEAK.get().filter(|(weak, _)| *weak == site) {
        None => Some(stated),
        Some((_, Weakening::Nothing)) => None,
        Some((_, Weakening::Acquire)) => Some(Ordering::Acquire),
        Some((_, Weakening::Release)) => Some(Ordering::Release),
        Some((_, Weakening::AcqRel)) => Some(Ordering::AcqRel),
    }
}

#[track_caller]
pub(crate) fn fence(stated: Ordering) {
    if let Some(order) = order(stated) {
        real::fence(order);
    }
}

macro_rules! atomics {
    ($($name:ident $value:ident),*) => {$(
        #[derive(Debug)]
        pub(crate) struct $name(real::$name);

        #[allow(dead_code)]
        impl $name {
            pub(crate) fn new(value: $value) -> Self {
                Self(real::$name::new(value))
            }

            #[track_caller]
            pub(crate) fn load(&self, stated: Ordering) -> $value {
                self.0.load(order(stated).unwrap_or(Ordering::Relaxed))
            }

            #[track_caller]
            pub(crate) fn store(&self, value: $value, stated: Ordering) {
                self.0.store(value, order(stated).unwrap_or(Ordering::Relaxed));
            }

            #[track_caller]
            pub(crate) fn fetch_add(&self, value: $value, stated: Ordering) -> $value {
                self.0.fetch_add(value, order(stated).unwrap_or(Ordering::Relaxed))
            }

            #[track_caller]
            pub(crate) fn fetch_or(&self, value: $value, stated: Ordering) -> $value {
                self.0.fetch_or(value, order(stated).unwrap_or(Ordering::Relaxed))
            }

            #[track_caller]
            pub(crate) fn compare_exchange_weak(
                &self,
                from: $value,
                to: $value,
                stated: Ordering,
                failed: Ordering,
            ) -> Result<$value, $value> {
                let order = order(stated).unwrap_or(Ordering::Relaxed);
                self.0.compare_exchange_weak(from, to, order, failed)
            }
        }
    )*};
}
atomics!(AtomicU64 u64, AtomicU32 u32);
