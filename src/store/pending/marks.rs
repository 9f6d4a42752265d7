//! Marks for everything on disk that is filed under a label: in force for lookups until the writer has carried them out.
//!
//! Bounds: [`NAMED_MAX`] labels of names, and apart from these [`WIDE_MAX`] wide ones, of a whole origin, of paths, or of what
//! answers a query: whoever has no room for names can say more with one of an origin, and the others are none of his. One
//! that comes again before it is done takes no more room.

use std::collections::HashMap;

use crate::{
    policy::Mark,
    store::{labels::Label, resource::stronger},
};

/// Each costs a look at the disk. One origin can fill it with some tens of answers.
const NAMED_MAX: usize = 4_096;

/// More origins than are busy invalidating within one interval of the writer.
const WIDE_MAX: usize = 4_096;

/// See the module documentation.
#[derive(Default)]
pub(super) struct LabelMarks {
    marks: HashMap<Label, LabelMark>,
    /// How many of them are wide.
    wide: usize,
}

/// A mark for what is filed under one label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct LabelMark {
    pub(in crate::store) mark: Mark,
    // Of the change that asked for it last: what was done on disk before that is not enough.
    number: u64,
}

impl LabelMarks {
    pub(super) fn has_room(&self, labels: &[Label]) -> bool {
        let new = labels
            .iter()
            .filter(|label| !self.marks.contains_key(*label));
        let (wide, named): (Vec<_>, Vec<_>) = new.partition(|label| label.is_wide());
        self.wide + wide.len() <= WIDE_MAX
            && self.marks.len() - self.wide + named.len() <= NAMED_MAX
    }

    /// Asks for `mark` under each of `labels`; `number` is that of the change.
    pub(super) fn ask(&mut self, labels: &[Label], mark: Mark, number: u64) {
        for label in labels {
            let known = self.marks.get(label).map_or(Mark::None, |known| known.mark);
            let mark = stronger(known, mark);
            let before = self.marks.insert(label.clone(), LabelMark { mark, number });
            self.wide += usize::from(label.is_wide() && before.is_none());
        }
    }

    /// The mark of what is filed under any of `labels`.
    pub(super) fn of(&self, labels: &[Label]) -> Mark {
        let marks = labels.iter().filter_map(|label| self.marks.get(label));
        marks.fold(Mark::None, |all, one| stronger(all, one.mark))
    }

    pub(super) fn all(&self) -> Vec<(Label, LabelMark)> {
        let all = self.marks.iter();
        all.map(|(label, mark)| (label.clone(), *mark)).collect()
    }

    /// Forgets what is done, unless it was asked for again meanwhile.
    pub(super) fn forget(&mut self, done: &[(Label, LabelMark)]) {
        for (label, mark) in done {
            if self.marks.get(label) == Some(mark) {
                self.marks.remove(label);
                self.wide -= usize::from(label.is_wide());
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{LabelMarks, NAMED_MAX, WIDE_MAX};
    use crate::{policy::Mark, store::labels::Label};

    fn label(number: usize) -> Label {
        Label::tag(number.to_string().as_bytes())
    }

    #[test]
    fn what_is_asked_for_again_meanwhile_is_done_again_and_takes_no_more_room() {
        let mut marks = LabelMarks::default();
        marks.ask(&[label(0), label(1)], Mark::Stale, 1);
        let taken = marks.all();
        marks.ask(&[label(1)], Mark::Invalid, 2);
        assert_eq!(marks.all().len(), 2);
        assert_eq!(marks.of(&[label(0), label(1)]), Mark::Invalid);
        marks.forget(&taken);
        assert_eq!(marks.of(&[label(0)]), Mark::None);
        assert_eq!(marks.of(&[label(1)]), Mark::Invalid);
        marks.forget(&marks.all());
        assert!(marks.is_empty());
    }

    #[test]
    fn labels_have_a_bound_that_those_known_do_not_reach() {
        let mut marks = LabelMarks::default();
        let all: Vec<_> = (0..NAMED_MAX).map(label).collect();
        assert!(marks.has_room(&all));
        marks.ask(&all, Mark::Invalid, 1);
        assert!(marks.has_room(&all));
        assert!(!marks.has_room(&[label(NAMED_MAX)]));
    }

    #[test]
    fn names_leave_room_for_wide_labels_and_these_for_names() {
        let wide = |number: usize| Label::some_group(&number.to_string());
        let mut marks = LabelMarks::default();
        let names: Vec<_> = (0..NAMED_MAX).map(label).collect();
        let origins: Vec<_> = (0..WIDE_MAX).map(wide).collect();
        marks.ask(&names, Mark::Invalid, 1);
        assert!(marks.has_room(&origins));
        assert!(marks.has_room(&[Label::paths("http://a", "/**")]));
        let field = [("no-vary-search", "key-order")].map(|(name, text)| {
            let name = http::HeaderName::from_static(name);
            (name, http::HeaderValue::from_static(text))
        });
        let settings = crate::policy::Settings::default();
        let (time, status) = (crate::policy::Timestamp::from_secs(0), http::StatusCode::OK);
        let headers = field.into_iter().collect();
        let terms = crate::policy::Terms::parse(status, &headers, &settings, time, time);
        let variation = terms.search.unwrap();
        assert!(marks.has_room(&[Label::search("http://a/", &variation, "q")]));
        for number in [2, 3] {
            marks.ask(&origins, Mark::Invalid, number);
            assert!(marks.has_room(&origins));
            assert!(!marks.has_room(&[wide(WIDE_MAX)]));
        }
        marks.forget(&marks.all());
        marks.ask(&origins, Mark::Invalid, 4);
        assert!(marks.has_room(&names));
        assert!(!marks.has_room(&[wide(WIDE_MAX)]));
    }
}
