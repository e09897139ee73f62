//! Whose turn it is: every pipeline has one a round, a bounded number at once, and none two at the same time.

use std::collections::{HashSet, VecDeque};

use crate::name::Name;

/// Pipelines that wait for their turn, and those that have it.
#[derive(Debug, Default)]
pub(super) struct Turns {
    due: VecDeque<Name>,
    /// Those that wait and those that have their turn.
    known: HashSet<Name>,
    under_way: usize,
}

// === impl Turns ===

impl Turns {
    /// Begins a round: whoever neither waits nor has its turn is due, behind those that still wait.
    pub(super) fn round(&mut self, pipelines: impl IntoIterator<Item = Name>) {
        for name in pipelines {
            if self.known.insert(name.clone()) {
                self.due.push_back(name);
            }
        }
    }

    /// Gives the next its turn, unless `at_once` have theirs.
    pub(super) fn next(&mut self, at_once: usize) -> Option<Name> {
        if self.under_way >= at_once {
            return None;
        }
        let next = self.due.pop_front()?;
        self.under_way += 1;
        Some(next)
    }

    /// Ends a turn.
    pub(super) fn over(&mut self, name: &Name) {
        self.known.remove(name);
        self.under_way = self.under_way.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(many: usize) -> Vec<Name> {
        (0..many).map(|number| Name { namespace: "n".to_owned(), name: format!("p{number}") }).collect()
    }

    fn take(turns: &mut Turns, at_once: usize) -> Vec<Name> {
        std::iter::from_fn(|| turns.next(at_once)).collect()
    }

    #[test]
    fn everyone_has_a_turn_though_few_have_it_at_once() {
        let all = names(7);
        let mut turns = Turns::default();
        let mut seen = Vec::new();
        // Rounds begin before the last one is through.
        for _ in 0..14 {
            turns.round(all.clone());
            let some = take(&mut turns, 3);
            assert_eq!(some.len(), 3, "{some:?}");
            some.iter().for_each(|name| turns.over(name));
            seen.extend(some);
        }
        for name in &all {
            assert!(seen.iter().filter(|seen| *seen == name).count() >= 4, "{name} of {seen:?}");
        }
    }

    #[test]
    fn one_that_hangs_holds_up_no_other_and_is_not_begun_twice() {
        let all = names(3);
        let mut turns = Turns::default();
        turns.round(all.clone());
        let first = take(&mut turns, 2);
        turns.over(&first[1]);
        // The first one never answers.
        let mut others = Vec::new();
        for _ in 0..4 {
            turns.round(all.clone());
            let next = take(&mut turns, 2);
            assert_eq!(next.len(), 1, "{next:?}");
            turns.over(&next[0]);
            others.extend(next);
        }
        assert!(others.contains(&all[1]) && others.contains(&all[2]) && !others.contains(&all[0]), "{others:?}");
        // At last it does.
        turns.over(&first[0]);
        turns.round(all.clone());
        assert!(take(&mut turns, 3).contains(&all[0]));
    }
}
