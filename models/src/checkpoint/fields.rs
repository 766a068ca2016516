//! Reading fields of published JSON strictly: what is wrong is gathered, so that one refusal names everything.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// A field of a JSON file with a value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldFault {
    /// Path of the field, such as `text_config.hidden_act`.
    pub field: String,
    /// The value found, as JSON, or `nothing`.
    pub found: String,
    /// What would do.
    pub expected: String,
}

impl fmt::Display for FieldFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: found {}, expected {}", self.field, self.found, self.expected)
    }
}

/// Every fault of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFaults {
    /// The file.
    pub path: PathBuf,
    /// At least one.
    pub faults: Vec<FieldFault>,
}

/// Faults of one file, gathered while it is read.
#[derive(Debug)]
pub struct Faults {
    path: PathBuf,
    list: RefCell<Vec<FieldFault>>,
}

impl Faults {
    /// Of a file, none so far.
    pub fn of(path: &Path) -> Self {
        Self { path: path.to_path_buf(), list: RefCell::default() }
    }

    /// Adds one.
    pub fn add(&self, field: impl Into<String>, found: impl Into<String>, expected: impl Into<String>) {
        let fault = FieldFault { field: field.into(), found: found.into(), expected: expected.into() };
        self.list.borrow_mut().push(fault);
    }

    /// All of them as one error, where at least one was added; none are left afterwards.
    pub fn refusal(&self) -> FileFaults {
        FileFaults { path: self.path.clone(), faults: self.list.take() }
    }

    /// All of them as one error, if there are any; none are left afterwards.
    ///
    /// # Errors
    /// [`FileFaults`] with every fault.
    pub fn check(&self) -> Result<(), FileFaults> {
        let faults = self.list.take();
        if faults.is_empty() { Ok(()) } else { Err(FileFaults { path: self.path.clone(), faults }) }
    }
}

/// A value as an error shows it: JSON, cut where it is long.
pub fn shown(value: Option<&Value>) -> String {
    const LONGEST: usize = 80;
    let Some(value) = value else { return "nothing".into() };
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

/// Whether a list of words, parted by spaces, has this one.
pub fn listed(words: &str, word: &str) -> bool {
    words.split_ascii_whitespace().any(|listed| listed == word)
}

/// One JSON object with the faults it adds to. A `null` counts as absent.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    /// Path of the object inside the file, empty or ending in a dot.
    at: &'a str,
    map: Option<&'a Map<String, Value>>,
    faults: &'a Faults,
}

impl<'a> Fields<'a> {
    /// The fields of `value`, which stands at `at` in the file; anything but an object has none.
    pub fn new(at: &'a str, value: Option<&'a Value>, faults: &'a Faults) -> Self {
        Self { at, map: value.and_then(Value::as_object), faults }
    }

    /// Where faults of this object go.
    pub fn faults(&self) -> &'a Faults {
        self.faults
    }

    /// The value of a field, if present.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map?.get(name).filter(|v| !v.is_null())
    }

    /// The path of a field inside the file.
    pub fn path(&self, name: &str) -> String {
        format!("{}{name}", self.at)
    }

    /// A fault of a value that stands below this object.
    pub fn fault_at(&self, name: &str, value: &Value, expected: impl Into<String>) {
        self.faults.add(self.path(name), shown(Some(value)), expected);
    }

    /// A fault of a field that counts as absent here, such as a `null`.
    pub fn fault_of(&self, name: &str, found: &str, expected: impl Into<String>) {
        self.faults.add(self.path(name), found, expected);
    }

    /// A fault of the field's own value.
    pub fn fault(&self, name: &str, expected: impl Into<String>) {
        self.faults.add(self.path(name), shown(self.get(name)), expected);
    }

    fn read<T>(&self, name: &str, expected: &str, parse: impl Fn(&'a Value) -> Option<T>) -> Option<T> {
        let value = self.get(name)?;
        let parsed = parse(value);
        if parsed.is_none() {
            self.fault(name, expected);
        }
        parsed
    }

    /// A whole number, if present.
    pub fn count(&self, name: &str) -> Option<u64> {
        self.read(name, "a whole number", Value::as_u64)
    }

    /// A size, if present: at least 1, and small enough that products of sizes cannot overflow.
    pub fn size(&self, name: &str) -> Option<usize> {
        const LARGEST: u64 = 1 << 20;
        let parse = |v: &Value| v.as_u64().filter(|n| (1..=LARGEST).contains(n)).map(|n| n as usize);
        self.read(name, "a whole number from 1 to 1048576", parse)
    }

    /// A size that must be there; 0 after a fault.
    pub fn needed_size(&self, name: &str) -> usize {
        if self.get(name).is_none() {
            self.fault(name, "a whole number from 1 to 1048576");
        }
        self.size(name).unwrap_or(0)
    }

    /// A number, if present.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.read(name, "a number", Value::as_f64)
    }

    /// A number that must be there; 0 after a fault.
    pub fn needed_number(&self, name: &str) -> f64 {
        if self.get(name).is_none() {
            self.fault(name, "a number");
        }
        self.number(name).unwrap_or(0.0)
    }

    /// A yes or no, if present.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.read(name, "true or false", Value::as_bool)
    }

    /// A string, if present.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.read(name, "a string", Value::as_str)
    }

    /// A token id, if present.
    pub fn id(&self, name: &str) -> Option<u32> {
        self.read(name, "a token id", |v| v.as_u64().and_then(|n| u32::try_from(n).ok()))
    }

    /// A list whose every element `parse` understands, if present.
    pub fn list<T>(&self, name: &str, expected: &str, parse: impl Fn(&'a Value) -> Option<T>) -> Option<Vec<T>> {
        self.read(name, expected, |v| v.as_array()?.iter().map(&parse).collect())
    }

    /// A list of strings; empty where absent.
    pub fn texts(&self, name: &str) -> Vec<String> {
        self.list(name, "a list of strings", |v| v.as_str().map(str::to_string)).unwrap_or_default()
    }

    /// Refuses a string that is there and is not `only`.
    pub fn only_text(&self, name: &str, only: &str) {
        if self.get(name).is_some_and(|v| v.as_str() != Some(only)) {
            self.fault(name, format!("\"{only}\""));
        }
    }

    /// Refuses a flag that is there and is not `only`.
    pub fn only_flag(&self, name: &str, only: bool) {
        if self.get(name).is_some_and(|v| v.as_bool() != Some(only)) {
            self.fault(name, only.to_string());
        }
    }

    /// Every field that is there and not `null`, by name.
    pub fn present(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.map.into_iter().flatten().filter(|(_, v)| !v.is_null())
    }
}
