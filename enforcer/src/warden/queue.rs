//! Which instant comes next, and for what.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

use crate::clock::BootInstant;

/// Instants by item, at most one each. The next is known without a search; every change costs
/// log n.
#[derive(Clone, Debug)]
pub struct DeadlineQueue<T> {
    ordered: BTreeSet<(BootInstant, T)>,
    instants: HashMap<T, BootInstant>,
}

impl<T: Copy + Ord + Hash> DeadlineQueue<T> {
    /// An empty queue.
    pub fn new() -> Self {
        Self {
            ordered: BTreeSet::new(),
            instants: HashMap::new(),
        }
    }

    /// Sets the instant of an item, in place of the one it had.
    pub fn set(&mut self, item: T, at: BootInstant) {
        if let Some(before) = self.instants.insert(item, at) {
            self.ordered.remove(&(before, item));
        }
        self.ordered.insert((at, item));
    }

    /// Forgets an item.
    pub fn remove(&mut self, item: T) {
        if let Some(at) = self.instants.remove(&item) {
            self.ordered.remove(&(at, item));
        }
    }

    /// The next instant.
    pub fn next_at(&self) -> Option<BootInstant> {
        self.ordered.first().map(|(at, _)| *at)
    }

    /// Takes an item whose instant has come, the earliest first.
    pub fn pop_due(&mut self, now: BootInstant) -> Option<T> {
        let (at, item) = *self.ordered.first()?;
        if at > now {
            return None;
        }
        self.remove(item);
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn items_come_out_in_order_each_at_its_last_instant(
            sets in prop::collection::vec((0_u8..20, 0_u64..1000), 0..200),
            removed in prop::collection::vec(0_u8..20, 0..5),
        ) {
            let mut queue = DeadlineQueue::new();
            let mut model = HashMap::new();
            for (item, at) in sets {
                queue.set(item, BootInstant::from_nanos(at));
                model.insert(item, at);
            }
            for item in removed {
                queue.remove(item);
                model.remove(&item);
            }
            prop_assert_eq!(queue.next_at().map(BootInstant::as_nanos), model.values().min().copied());
            let mut due = Vec::new();
            while let Some(item) = queue.pop_due(BootInstant::from_nanos(500)) {
                due.push(item);
            }
            let mut expected: Vec<_> =
                model.iter().filter(|(_, at)| **at <= 500).map(|(item, at)| (*at, *item)).collect();
            expected.sort_unstable();
            prop_assert_eq!(due, expected.into_iter().map(|(_, item)| item).collect::<Vec<_>>());
        }
    }
}
