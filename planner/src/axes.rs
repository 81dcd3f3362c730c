//! The axes of a stage as combinations: which fields take which values, under which name.
//!
//! It does not know what the fields mean; `cell` puts the values in.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use domain::model::KEYS;
use domain::spec::{AxisSpec, Locations, PretrainSpec, SpecError, TrainingSpec};
use domain::suggest::nearest;
use serde_json::Value;

use crate::AT;
use crate::cell::with_every_key;

/// A plan with more cells than this is a slip of the keyboard.
const MAX_COMBINATIONS: u32 = 2_000_000;

/// One field that an axis sets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Dotted, relative to the recipe: `model.d_model`, `training.seed`.
    pub(crate) field: String,
    /// The value.
    pub(crate) value: Value,
    /// The path in the study file, for errors.
    pub(crate) path: String,
}

/// One value of one axis.
#[derive(Debug, PartialEq, Eq)]
struct AxisValue {
    /// What tables show.
    text: String,
    /// What names are made of: a bare number says nothing, so it carries its axis' name.
    label: String,
    settings: Vec<Setting>,
}

#[derive(Debug, PartialEq, Eq)]
struct Axis {
    name: String,
    values: Vec<AxisValue>,
    /// From one value to the next the number of a combination grows by so much.
    stride: u32,
}

/// The axes of a stage. A combination of their values is a number; the first axis varies slowest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Axes {
    all: Vec<Axis>,
    n_combinations: u32,
    /// The position of the axis that sets the seed and nothing else, and its seeds.
    seeds: Option<(usize, Vec<u32>)>,
}

/// One value of every axis.
///
/// It is a number beside the axes, because a study may have a million of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Combination {
    axes: Arc<Axes>,
    number: u32,
}

impl Combination {
    /// The value of an axis, as text.
    pub fn get(&self, axis: &str) -> Option<&str> {
        let (_, value) = self.picked().find(|(known, _)| known.name == axis)?;
        Some(&value.text)
    }

    /// The value of each axis, as text.
    pub fn to_map(&self) -> BTreeMap<&str, &str> {
        self.picked().map(|(axis, value)| (axis.name.as_str(), value.text.as_str())).collect()
    }

    /// The place in the order of all combinations.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// The labels joined by `-`; empty without axes.
    pub(crate) fn name(&self) -> String {
        let mut name = String::new();
        for (_, value) in self.picked() {
            if !name.is_empty() {
                name.push('-');
            }
            name.push_str(&value.label);
        }
        name
    }

    /// What the axes set, in their order.
    pub(crate) fn settings(&self) -> impl DoubleEndedIterator<Item = &Setting> {
        self.picked().flat_map(|(_, value)| &value.settings)
    }

    /// The path of what sets a field: the axis value where there is one, else the base.
    pub(crate) fn path_of(&self, field: &str) -> String {
        let is_setting = |setting: &&Setting| {
            setting.field == field || field.starts_with(&format!("{}.", setting.field))
        };
        let found = self.settings().rev().find(is_setting);
        found.map_or_else(|| format!("{AT}.{field}"), |setting| setting.path.clone())
    }

    /// The first combination that differs from this one in nothing but the seed, and this one's
    /// seed. Nothing where no axis is of seeds alone.
    pub(crate) fn seed(&self) -> Option<(Self, u32)> {
        let (position, seeds) = self.axes.seeds.as_ref()?;
        let axis = &self.axes.all[*position];
        let index = self.index_in(axis);
        let number = self.number - index * axis.stride;
        Some((Self { axes: Arc::clone(&self.axes), number }, seeds[index as usize]))
    }

    fn picked(&self) -> impl DoubleEndedIterator<Item = (&Axis, &AxisValue)> {
        self.axes.all.iter().map(|axis| (axis, &axis.values[self.index_in(axis) as usize]))
    }

    fn index_in(&self, axis: &Axis) -> u32 {
        self.number / axis.stride % axis.n_values()
    }
}

impl Axis {
    #[expect(clippy::cast_possible_truncation, reason = "there are fewer than combinations")]
    fn n_values(&self) -> u32 {
        self.values.len() as u32
    }
}

impl AxisValue {
    /// The seed, if that is what it sets and nothing else.
    fn seed(&self) -> Option<u32> {
        let [Setting { field, value, .. }] = self.settings.as_slice() else { return None };
        let seed = value.as_u64().and_then(|seed| u32::try_from(seed).ok());
        seed.filter(|_| field == "training.seed")
    }
}

/// Every combination of the axes' values.
pub(crate) fn combinations(
    pretrain: &PretrainSpec,
    locations: &Locations,
) -> Result<impl Iterator<Item = Combination>, SpecError> {
    let axes = Arc::new(read_axes(pretrain, locations)?);
    let n = axes.n_combinations;
    Ok((0..n).map(move |number| Combination { axes: Arc::clone(&axes), number }))
}

fn read_axes(pretrain: &PretrainSpec, locations: &Locations) -> Result<Axes, SpecError> {
    let fields = fields(&pretrain.training);
    let mut all = Vec::new();
    for (index, axis) in pretrain.axes.iter().enumerate() {
        let values = read_axis(axis, &format!("{AT}.axes[{index}]"), &fields, locations)?;
        all.push(Axis { name: axis.name.clone(), values, stride: 1 });
    }
    refuse_fields_set_twice(&all, locations)?;
    let mut n_combinations = 1_u32;
    for axis in all.iter_mut().rev() {
        axis.stride = n_combinations;
        let n = u32::try_from(axis.values.len()).ok().and_then(|n| n.checked_mul(n_combinations));
        let Some(n) = n.filter(|n| *n <= MAX_COMBINATIONS) else {
            let problem = format!("the axes multiply to more than {MAX_COMBINATIONS} cells");
            return Err(locations.error(&format!("{AT}.axes"), problem));
        };
        n_combinations = n;
    }
    let seeds = all.iter().enumerate().find_map(|(position, axis)| {
        let seeds: Option<Vec<u32>> = axis.values.iter().map(AxisValue::seed).collect();
        Some((position, seeds?))
    });
    Ok(Axes { all, n_combinations, seeds })
}

/// Every field that an axis may set.
fn fields(training: &TrainingSpec) -> Vec<String> {
    // The vocabulary's size follows from the tokenizer.
    let keys = KEYS.iter().filter(|key| **key != "vocab_size").chain(["preset"].iter());
    let mut fields: Vec<String> = keys.map(|key| format!("model.{key}")).collect();
    collect_fields(&with_every_key(training), "training", &mut fields);
    fields
}

fn collect_fields(value: &Value, path: &str, fields: &mut Vec<String>) {
    let Value::Object(map) = value else { return };
    for (key, inner) in map {
        let path = format!("{path}.{key}");
        collect_fields(inner, &path, fields);
        fields.push(path);
    }
}

fn read_axis(
    axis: &AxisSpec,
    at: &str,
    fields: &[String],
    locations: &Locations,
) -> Result<Vec<AxisValue>, SpecError> {
    if let Some(field) = &axis.field {
        check_field(field, &format!("{at}.field"), fields, locations)?;
    }
    let mut values: Vec<AxisValue> = Vec::new();
    let mut labels = HashSet::new();
    for (index, value) in axis.values.iter().enumerate() {
        let path = format!("{at}.values[{index}]");
        let read = match (&axis.field, value) {
            (Some(field), value) => scalar(axis, field, value, &path, locations)?,
            (None, Value::Object(map)) => bundle(map, &path, fields, locations)?,
            (None, _) => {
                let problem = "a bare value needs the axis' `field`; without it, values are \
                               mappings with a `label` and fields such as `model.d_model`";
                return Err(locations.error(&path, problem));
            }
        };
        if !labels.insert(read.label.clone()) {
            let problem = format!("`{}` stands in this axis already", read.text);
            return Err(locations.error(&path, problem));
        }
        values.push(read);
    }
    Ok(values)
}

fn scalar(
    axis: &AxisSpec,
    field: &str,
    value: &Value,
    path: &str,
    locations: &Locations,
) -> Result<AxisValue, SpecError> {
    let (text, label) = match value {
        Value::String(text) => (text.clone(), text.clone()),
        Value::Number(_) | Value::Bool(_) => (value.to_string(), format!("{}{value}", axis.name)),
        _ => {
            let problem = format!("with `field: {field}` a value is a text, a number or a boolean");
            return Err(locations.error(path, problem));
        }
    };
    check_label(&label, path, locations)?;
    let setting = Setting { field: field.to_owned(), value: value.clone(), path: path.to_owned() };
    Ok(AxisValue { text, label, settings: vec![setting] })
}

fn bundle(
    map: &serde_json::Map<String, Value>,
    path: &str,
    fields: &[String],
    locations: &Locations,
) -> Result<AxisValue, SpecError> {
    let label = match map.get("label") {
        Some(Value::String(label)) => label.clone(),
        Some(label @ Value::Number(_)) => label.to_string(),
        _ => return Err(locations.error(path, "the mapping needs a `label`, such as `label: s1`")),
    };
    check_label(&label, &format!("{path}.label"), locations)?;
    let mut settings = Vec::new();
    for (field, value) in map.iter().filter(|(field, _)| *field != "label") {
        let path = format!("{path}.{field}");
        check_field(field, &path, fields, locations)?;
        settings.push(Setting { field: field.clone(), value: value.clone(), path });
    }
    Ok(AxisValue { text: label.clone(), label, settings })
}

fn check_label(label: &str, path: &str, locations: &Locations) -> Result<(), SpecError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !label.is_empty() && label.len() <= 64 && label.bytes().all(allowed) {
        return Ok(());
    }
    let problem = format!(
        "`{label}` cannot be part of a cell's name: 1 to 64 letters, digits, `-`, `_` or `.`"
    );
    Err(locations.error(path, problem))
}

fn check_field(
    field: &str,
    path: &str,
    fields: &[String],
    locations: &Locations,
) -> Result<(), SpecError> {
    if fields.iter().any(|known| known == field) {
        return Ok(());
    }
    if field == "model.vocab_size" {
        return Err(locations.error(path, "the vocabulary's size comes from `data.tokenizer`"));
    }
    let hint = match nearest(field, fields.iter().map(String::as_str)) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("valid: {}", backticked(fields)),
    };
    Err(locations.error(path, format!("`{field}` is no field that an axis can set; {hint}")))
}

fn backticked(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Two axes that set one field would make one of them a lie.
fn refuse_fields_set_twice(axes: &[Axis], locations: &Locations) -> Result<(), SpecError> {
    let overlaps = |a: &str, b: &str| {
        a == b || a.starts_with(&format!("{b}.")) || b.starts_with(&format!("{a}."))
    };
    let mut earlier: BTreeSet<&str> = BTreeSet::new();
    for axis in axes {
        let settings = || axis.values.iter().flat_map(|value| &value.settings);
        // Each field once, where it stands first: an axis has few, and may have many values.
        let mut own = BTreeSet::new();
        for setting in settings().filter(|setting| own.insert(setting.field.as_str())) {
            if earlier.iter().any(|other| overlaps(other, &setting.field)) {
                let problem = format!("`{}` is set by an earlier axis already", setting.field);
                return Err(locations.error(&setting.path, problem));
            }
        }
        earlier.extend(own);
    }
    Ok(())
}
