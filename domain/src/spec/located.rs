//! YAML text as a JSON value together with the line and column of every key.
//!
//! It knows nothing of studies.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

use super::error::{Place, SpecError};

/// The largest integer that a float holds exactly; `1e6` means the integer up to here.
const LARGEST_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

/// Where each key of a study file stands.
#[derive(Debug, Clone, Default)]
pub struct Locations {
    file: String,
    places: BTreeMap<String, (u64, u64)>,
}

impl Locations {
    /// An error at a key. A path that is not in the file is reported at its nearest ancestor.
    pub fn error(&self, path: &str, problem: impl Into<String>) -> SpecError {
        let (line, column) = self.find(path);
        let place = Place { file: self.file.clone(), line, column };
        SpecError { place, path: path.to_owned(), problem: problem.into() }
    }

    fn find(&self, path: &str) -> (u64, u64) {
        let mut candidate = path;
        loop {
            if let Some(place) = self.places.get(candidate) {
                return *place;
            }
            match candidate.rfind(['.', '[']) {
                Some(end) => candidate = &candidate[..end],
                None => return self.places.get("").copied().unwrap_or((1, 1)),
            }
        }
    }
}

/// Reads YAML into a JSON value and the places of its keys.
pub(super) fn read(text: &str, file: &str) -> Result<(Value, Locations), SpecError> {
    // Else a label `off` or `y` would be a boolean, as YAML 1.1 has it.
    let options = serde_saphyr::options! { strict_booleans: true };
    let node = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let at = error.location().map_or((1, 1), |at| (at.line(), at.column()));
        SpecError {
            place: Place { file: file.to_owned(), line: at.0, column: at.1 },
            path: String::new(),
            problem: format!("not readable as YAML: {}", first_line(error.without_snippet())),
        }
    })?;
    let mut locations = Locations { file: file.to_owned(), places: BTreeMap::new() };
    let value = flatten(node, "", &mut locations.places);
    Ok((value, locations))
}

fn first_line(error: &impl fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn flatten(node: Spanned<Node>, path: &str, places: &mut BTreeMap<String, (u64, u64)>) -> Value {
    let at = node.referenced;
    places.entry(path.to_owned()).or_insert((at.line(), at.column()));
    match node.value {
        Node::Scalar(value) => value,
        Node::Sequence(items) => Value::Array(
            items
                .into_iter()
                .enumerate()
                .map(|(index, item)| flatten(item, &format!("{path}[{index}]"), places))
                .collect(),
        ),
        Node::Mapping(entries) => {
            let mut map = Map::new();
            for (key, value) in entries {
                let inner = if path.is_empty() {
                    key.value.clone()
                } else {
                    format!("{path}.{}", key.value)
                };
                let at = key.referenced;
                places.insert(inner.clone(), (at.line(), at.column()));
                map.insert(key.value, flatten(value, &inner, places));
            }
            Value::Object(map)
        }
    }
}

enum Node {
    Scalar(Value),
    Sequence(Vec<Spanned<Node>>),
    Mapping(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar, a list or a mapping")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(Value::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(Value::from(value)))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        if value.fract() == 0.0 && value.abs() <= LARGEST_EXACT_INTEGER {
            #[expect(clippy::cast_possible_truncation, reason = "integral and below 2^53")]
            return Ok(Node::Scalar(Value::from(value as i64)));
        }
        Number::from_f64(value)
            .map(|number| Node::Scalar(Value::Number(number)))
            .ok_or_else(|| E::custom(format!("`{value}` is not a finite number")))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(Value::String(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Node::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Mapping(entries))
    }
}
