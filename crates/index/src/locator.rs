//! Where in a file something was found.

use serde::Serialize;

use crate::error::QueryError;

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Locator {
    /// The file as a whole.
    #[default]
    Whole,
    /// Lines of its text, from 1, the last one included.
    Lines {
        /// First line.
        first: u32,
        /// Last line.
        last: u32,
    },
    /// A page or slide, from 1.
    Page(u32),
    /// A stretch of audio or video.
    Time {
        /// Where it begins, in seconds.
        start_s: f64,
        /// Where it ends, in seconds.
        end_s: f64,
    },
}

/// A locator as JSON has it: `{"line": 3}`, `{"page": 3}` or `{"start_s": 0, "end_s": 2.5}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LocatorBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_s: Option<f64>,
}

impl Locator {
    /// As a row of the database: which kind, and two numbers.
    pub(crate) fn to_row(self) -> (i64, f64, f64) {
        match self {
            Locator::Whole => (0, 0.0, 0.0),
            Locator::Lines { first, last } => (1, first.into(), last.into()),
            Locator::Page(page) => (2, page.into(), 0.0),
            Locator::Time { start_s, end_s } => (3, start_s, end_s),
        }
    }

    /// From a row of the database; `None` for one that no release wrote.
    pub(crate) fn of_row(kind: i64, low: f64, high: f64) -> Option<Self> {
        let number =
            |value: f64| (value.fract() == 0.0 && (1.0..=f64::from(u32::MAX)).contains(&value)).then_some(value as u32);
        Some(match kind {
            0 => Locator::Whole,
            1 => Locator::Lines { first: number(low)?, last: number(high)? },
            2 => Locator::Page(number(low)?),
            3 if low >= 0.0 && high >= low => Locator::Time { start_s: low, end_s: high },
            _ => return None,
        })
    }

    /// For JSON.
    pub fn body(self) -> LocatorBody {
        let none = LocatorBody { line: None, page: None, start_s: None, end_s: None };
        match self {
            Locator::Whole => none,
            Locator::Lines { first, .. } => LocatorBody { line: Some(first), ..none },
            Locator::Page(page) => LocatorBody { page: Some(page), ..none },
            Locator::Time { start_s, end_s } => LocatorBody { start_s: Some(start_s), end_s: Some(end_s), ..none },
        }
    }

    /// What stands behind a path for people: `:12`, `#page=3`, `@00:01:23`.
    pub fn shown(self) -> String {
        match self {
            Locator::Whole => String::new(),
            Locator::Lines { first, .. } => format!(":{first}"),
            Locator::Page(page) => format!("#page={page}"),
            Locator::Time { start_s, .. } => {
                let whole = start_s as u64;
                format!("@{:02}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
            }
        }
    }

    /// Reads what people type: `line=12`, `line=12-40`, `page=3`, `t=12.5-20`.
    ///
    /// # Errors
    /// [`QueryError::BadLocator`].
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        let bad = || QueryError::BadLocator { found: text.into() };
        let (key, value) = text.split_once('=').ok_or_else(bad)?;
        let line = |text: &str| text.parse::<u32>().ok().filter(|line| *line > 0);
        let found = match (key, value.split_once('-')) {
            ("line", None) => line(value).map(|first| Locator::Lines { first, last: first }),
            ("line", Some((first, last))) => match (line(first), line(last)) {
                (Some(first), Some(last)) if first <= last => Some(Locator::Lines { first, last }),
                _ => None,
            },
            ("page", None) => line(value).map(Locator::Page),
            ("t", both) => {
                let (start, end) = both.unwrap_or((value, value));
                match (start.parse::<f64>(), end.parse::<f64>()) {
                    (Ok(start_s), Ok(end_s)) if start_s >= 0.0 && end_s >= start_s && end_s.is_finite() => {
                        Some(Locator::Time { start_s, end_s })
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        found.ok_or_else(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_back_and_what_nobody_wrote_is_not() {
        for locator in [
            Locator::Whole,
            Locator::Lines { first: 3, last: 9 },
            Locator::Page(7),
            Locator::Time { start_s: 0.5, end_s: 2.25 },
        ] {
            let (kind, low, high) = locator.to_row();
            assert_eq!(Locator::of_row(kind, low, high), Some(locator));
        }
        for (kind, low, high) in [(4, 0.0, 0.0), (1, 0.5, 2.0), (2, -1.0, 0.0), (3, 2.0, 1.0), (3, f64::NAN, 1.0)] {
            assert_eq!(Locator::of_row(kind, low, high), None);
        }
    }

    #[test]
    fn places_are_read_as_people_type_them() {
        assert_eq!(Locator::parse("line=3"), Ok(Locator::Lines { first: 3, last: 3 }));
        assert_eq!(Locator::parse("line=3-9"), Ok(Locator::Lines { first: 3, last: 9 }));
        assert_eq!(Locator::parse("page=2"), Ok(Locator::Page(2)));
        assert_eq!(Locator::parse("t=1.5-2"), Ok(Locator::Time { start_s: 1.5, end_s: 2.0 }));
        for wrong in ["", "line", "line=0", "line=9-3", "page=-1", "page=x", "t=2-1", "t=inf", "row=3"] {
            assert!(Locator::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_shown_in_hours_minutes_and_seconds() {
        assert_eq!(Locator::Time { start_s: 3723.9, end_s: 4000.0 }.shown(), "@01:02:03");
        assert_eq!(Locator::Page(3).shown(), "#page=3");
    }
}
