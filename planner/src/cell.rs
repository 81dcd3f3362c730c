//! One combination of axis values as a model and a training: the base, what the axes set, the
//! preset and the tokenizer's vocabulary put together.
//!
//! How long it trains is `design`'s.

use domain::model::{Architecture, ModelConfig, ModelError, Preset};
use domain::spec::{Locations, PretrainSpec, ScheduleSpec, SpecError, TrainingSpec};
use domain::suggest::nearest;
use serde_json::{Map, Value, json};

use crate::AT;
use crate::axes::Combination;

/// The network and the training of a combination; an impossible one is an error at its place.
pub(crate) fn configure(
    pretrain: &PretrainSpec,
    vocab_size: u32,
    combination: &Combination,
    locations: &Locations,
) -> Result<(ModelConfig, TrainingSpec), SpecError> {
    let model = model(pretrain, vocab_size, combination, locations)?;
    let mut training = training(pretrain, combination, locations)?;
    // The number itself is part of the cell's identity, so another rule makes another cell.
    let rate = &mut training.optimizer.learning_rate;
    *rate = rate.or(Some(model.default_learning_rate()));
    Ok((model, training))
}

fn model(
    pretrain: &PretrainSpec,
    vocab_size: u32,
    combination: &Combination,
    locations: &Locations,
) -> Result<ModelConfig, SpecError> {
    let refuse = |field: &str, problem: String| {
        let path = combination.path_of(&format!("model.{field}"));
        locations.error(&path, named(combination, &problem))
    };
    let mut keys = pretrain.model.clone();
    if keys.contains_key("vocab_size") {
        let problem = "the vocabulary's size comes from `data.tokenizer`; leave the key out";
        return Err(locations.error(&format!("{AT}.model.vocab_size"), problem));
    }
    for setting in combination.settings() {
        if let Some(key) = setting.field.strip_prefix("model.") {
            keys.insert(key.to_owned(), setting.value.clone());
        }
    }
    if let Some(preset) = keys.remove("preset") {
        fill_preset(&mut keys, &preset).map_err(|problem| refuse("preset", problem))?;
    }
    keys.insert("vocab_size".to_owned(), vocab_size.into());
    ModelConfig::from_map(&keys)
        .map_err(|error: ModelError| refuse(error.field(), error.to_string()))
}

/// Adds what a preset stands for. The name of an architecture is its preset of defaults.
fn fill_preset(keys: &mut Map<String, Value>, preset: &Value) -> Result<(), String> {
    let valid = || {
        let mut names: Vec<&str> = Preset::LABELS.to_vec();
        names.extend(Architecture::LABELS.iter().filter(|name| !Preset::LABELS.contains(name)));
        names
    };
    let name = preset.as_str().unwrap_or_default();
    let mut stands_for = if let Ok(preset) = name.parse::<Preset>() {
        preset.keys()
    } else if let Ok(architecture) = name.parse::<Architecture>() {
        Map::from_iter([("architecture".to_owned(), architecture.label().into())])
    } else {
        let names = valid();
        let hint = nearest(name, names.iter().copied())
            .map(|name| format!("; did you mean `{name}`?"))
            .unwrap_or_default();
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        return Err(format!("`preset` is {preset}; valid: {}{hint}", names.join(", ")));
    };
    if let (Some(written), Some(meant)) = (keys.get("architecture"), stands_for.get("architecture"))
        && written != meant
    {
        return Err(format!(
            "the preset `{name}` has the architecture {meant}, but `architecture` is {written}; \
             give only one of the two"
        ));
    }
    // A key that is written wins over the preset's.
    stands_for.retain(|key, _| !keys.contains_key(key));
    keys.extend(stands_for);
    Ok(())
}

fn training(
    pretrain: &PretrainSpec,
    combination: &Combination,
    locations: &Locations,
) -> Result<TrainingSpec, SpecError> {
    let settings: Vec<_> = combination
        .settings()
        .filter_map(|setting| Some((setting.field.strip_prefix("training.")?, setting)))
        .collect();
    if settings.is_empty() {
        return Ok(pretrain.training.clone());
    }
    let mut value = with_every_key(&pretrain.training);
    let mut training = pretrain.training.clone();
    for (key, setting) in settings {
        let Some(field) = value.pointer_mut(&format!("/{}", key.replace('.', "/"))) else {
            // Another field of the same value has taken it away.
            let problem = format!("`{}` is no longer there to be set", setting.field);
            return Err(locations.error(&setting.path, named(combination, &problem)));
        };
        *field = setting.value.clone();
        // One field at a time, so that an error is the last value's.
        training = serde_json::from_value(value.clone()).map_err(|error| {
            locations.error(&setting.path, named(combination, &error.to_string()))
        })?;
    }
    training.check("training").map_err(|(field, problem)| {
        locations.error(&combination.path_of(&field), named(combination, &problem))
    })?;
    Ok(training)
}

/// A training as JSON with every key, those included that a cell leaves out where they have their
/// defaults: an axis may set them all.
pub(crate) fn with_every_key(training: &TrainingSpec) -> Value {
    let mut value = json!(training);
    let stability = &training.stability;
    value["stability"] =
        json!({ "non_finite": stability.non_finite, "loss_spike": stability.loss_spike });
    value["z_loss"] = json!(training.z_loss);
    value["weight_average"] = json!(training.weight_average);
    if let ScheduleSpec::Wsd { decay, .. } = training.schedule {
        value["schedule"]["wsd"]["decay"] = json!(decay);
    }
    value
}

/// The problem with the name of the cell that has it.
pub(crate) fn named(combination: &Combination, problem: &str) -> String {
    match combination.name() {
        name if name.is_empty() => problem.to_owned(),
        name => format!("cell `{name}`: {problem}"),
    }
}
