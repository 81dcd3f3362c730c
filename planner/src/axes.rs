//! The axes of a stage as combinations: which fields take which values, under which name.
//!
//! It does not know what the fields mean; `cell` puts the values in.

use std::collections::BTreeMap;

use domain::model::KEYS;
use domain::spec::{AxisSpec, Locations, PretrainSpec, SpecError, TrainingSpec};
use domain::suggest::nearest;
use serde_json::Value;

use crate::AT;
use crate::cell::with_every_key;

/// A plan with more cells than this is a slip of the keyboard.
const MAX_COMBINATIONS: usize = 2_000_000;

/// One field that an axis sets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setting {
    /// Dotted, relative to the recipe: `model.d_model`, `training.seed`.
    pub(crate) field: String,
    /// The value.
    pub(crate) value: Value,
    /// The path in the study file, for errors.
    pub(crate) path: String,
}

/// One value of one axis.
#[derive(Debug, Clone, PartialEq)]
struct AxisValue {
    /// What tables show.
    text: String,
    /// What names are made of: a bare number says nothing, so it carries its axis' name.
    label: String,
    settings: Vec<Setting>,
}

/// One value of every axis.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Combination {
    /// The labels joined by `-`; empty without axes.
    pub(crate) name: String,
    /// The value of each axis, as text.
    pub(crate) axis_values: BTreeMap<String, String>,
    /// What the axes set, in their order.
    pub(crate) settings: Vec<Setting>,
}

impl Combination {
    /// The path of what sets a field: the axis value where there is one, else the base.
    pub(crate) fn path_of(&self, field: &str) -> String {
        let is_setting = |setting: &&Setting| {
            setting.field == field || field.starts_with(&format!("{}.", setting.field))
        };
        let found = self.settings.iter().rev().find(is_setting);
        found.map_or_else(|| format!("{AT}.{field}"), |setting| setting.path.clone())
    }
}

/// Every combination of the axes' values; the first axis varies slowest.
pub(crate) fn combinations(
    pretrain: &PretrainSpec,
    locations: &Locations,
) -> Result<Vec<Combination>, SpecError> {
    let fields = fields(&pretrain.training);
    let mut axes = Vec::new();
    for (index, axis) in pretrain.axes.iter().enumerate() {
        axes.push(read_axis(axis, &format!("{AT}.axes[{index}]"), &fields, locations)?);
    }
    refuse_fields_set_twice(&axes, locations)?;
    let n = axes.iter().try_fold(1_usize, |n, values| n.checked_mul(values.len()));
    if n.is_none_or(|n| n > MAX_COMBINATIONS) {
        let problem = format!("the axes multiply to more than {MAX_COMBINATIONS} cells");
        return Err(locations.error(&format!("{AT}.axes"), problem));
    }
    let mut all = vec![Combination::default()];
    for (axis, values) in pretrain.axes.iter().zip(&axes) {
        let extend = |base: Combination| values.iter().map(move |value| with(&base, axis, value));
        all = all.into_iter().flat_map(extend).collect();
    }
    Ok(all)
}

fn with(base: &Combination, axis: &AxisSpec, value: &AxisValue) -> Combination {
    let mut combination = base.clone();
    if !combination.name.is_empty() {
        combination.name.push('-');
    }
    combination.name.push_str(&value.label);
    combination.axis_values.insert(axis.name.clone(), value.text.clone());
    combination.settings.extend(value.settings.iter().cloned());
    combination
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
        if values.iter().any(|earlier| earlier.label == read.label) {
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
fn refuse_fields_set_twice(
    axes: &[Vec<AxisValue>],
    locations: &Locations,
) -> Result<(), SpecError> {
    let overlaps = |a: &str, b: &str| {
        a == b || a.starts_with(&format!("{b}.")) || b.starts_with(&format!("{a}."))
    };
    let settings = |values: &[AxisValue]| -> Vec<Setting> {
        values.iter().flat_map(|value| value.settings.clone()).collect()
    };
    for (index, values) in axes.iter().enumerate() {
        let earlier: Vec<Setting> =
            axes[..index].iter().flat_map(|values| settings(values)).collect();
        for setting in settings(values) {
            if earlier.iter().any(|other| overlaps(&other.field, &setting.field)) {
                let problem = format!("`{}` is set by an earlier axis already", setting.field);
                return Err(locations.error(&setting.path, problem));
            }
        }
    }
    Ok(())
}
