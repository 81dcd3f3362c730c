//! The settings of a fit from a request: each value checked by its field, with what would be valid.
//! It fits nothing.

use api::FitSettings;
use domain::spec::{FitMethod, FitObjective, FitSpec, FitWeights, HoldOut, LEAST_DRAWS};
use serde_json::Value;

use super::error::ApiError;
use super::extract::in_range;
use crate::fits::FitChange;

/// More draws than anyone waits for.
const MOST_DRAWS: u32 = 100_000;

/// The single settings of a query or a body.
pub(super) fn change(asked: &FitSettings) -> Result<FitChange, ApiError> {
    if let Some(draws) = asked.draws {
        in_range("draws", draws, LEAST_DRAWS..=MOST_DRAWS)?;
    }
    Ok(FitChange {
        spec: None,
        method: one_of("law", asked.law.as_deref(), &methods(), FitMethod::from_label)?,
        objective: one_of(
            "objective",
            asked.objective.as_deref(),
            &FitObjective::ALL.map(FitObjective::label),
            FitObjective::from_label,
        )?,
        weights: one_of(
            "weights",
            asked.weights.as_deref(),
            &FitWeights::ALL.map(FitWeights::label),
            FitWeights::from_label,
        )?,
        group_by: asked.group_by.clone().map(|axis| Some(axis).filter(|axis| !axis.is_empty())),
        hold_out: one_of(
            "hold_out",
            asked.hold_out.as_deref(),
            &HoldOut::ALL.map(HoldOut::label),
            HoldOut::from_label,
        )?,
        draws: asked.draws,
        seed: asked.seed,
    })
}

/// The whole section, as a study file has it.
pub(super) fn section(fit: Value) -> Result<FitSpec, ApiError> {
    let text = |field: &str| fit.get(field).and_then(Value::as_str);
    for method in fit.get("methods").and_then(Value::as_array).into_iter().flatten() {
        one_of("fit.methods", method.as_str(), &methods(), FitMethod::from_label)?;
    }
    let objectives = FitObjective::ALL.map(FitObjective::label);
    one_of("fit.objective", text("objective"), &objectives, FitObjective::from_label)?;
    let weights = FitWeights::ALL.map(FitWeights::label);
    one_of("fit.weights", text("weights"), &weights, FitWeights::from_label)?;
    let rules = HoldOut::ALL.map(HoldOut::label);
    one_of("fit.hold_out", text("hold_out"), &rules, HoldOut::from_label)?;
    let spec: FitSpec = serde_json::from_value(fit)
        .map_err(|error| ApiError::BadRequest(format!("`fit`: {error}")))?;
    in_range("fit.draws", spec.draws, LEAST_DRAWS..=MOST_DRAWS)?;
    Ok(spec)
}

fn methods() -> [&'static str; 9] {
    FitMethod::ALL.map(FitMethod::label)
}

/// The value that a field's text stands for, or what would be valid.
fn one_of<T>(
    field: &str,
    text: Option<&str>,
    valid: &[&str],
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    parse(text).map(Some).ok_or_else(|| {
        let valid: Vec<String> = valid.iter().map(|one| format!("`{one}`")).collect();
        ApiError::BadRequest(format!(
            "`{field}` is `{text}`; it must be one of {}",
            valid.join(", ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_wrong_value_is_named_with_its_field_and_what_would_be_valid() {
        let said = |settings: FitSettings| change(&settings).unwrap_err().to_string();
        let law = said(FitSettings { law: Some("sigmoid".into()), ..FitSettings::default() });
        assert!(law.contains("`law` is `sigmoid`; it must be one of `envelope`"), "{law}");
        let text = said(FitSettings { objective: Some("mse".into()), ..FitSettings::default() });
        assert!(text.contains("`objective` is `mse`; it must be one of `huber`, `lad`"), "{text}");
        let text = said(FitSettings { weights: Some("n".into()), ..FitSettings::default() });
        assert!(text.contains("`equal`, `seed_noise`"), "{text}");
        let text = said(FitSettings { hold_out: Some("c>1".into()), ..FitSettings::default() });
        assert!(text.contains("`none`, `largest_size`, `largest_compute`"), "{text}");
        let text = said(FitSettings { draws: Some(99), ..FitSettings::default() });
        assert!(text.contains("`draws=99` is out of range"), "{text}");
        assert_eq!(LEAST_DRAWS as usize, scaling::interval::MIN_DRAWS);
        for (fit, field) in [
            (json!({"methods": ["chinchilla", "x"]}), "`fit.methods` is `x`"),
            (json!({"objective": "x"}), "`fit.objective` is `x`"),
            (json!({"hold_out": "x"}), "`fit.hold_out` is `x`"),
        ] {
            let text = section(fit).unwrap_err().to_string();
            assert!(text.contains(field), "{text}");
        }
    }

    #[test]
    fn every_label_is_read_and_nothing_asked_is_no_change() {
        assert!(change(&FitSettings::default()).unwrap().is_empty());
        for method in FitMethod::ALL {
            assert_eq!(FitMethod::from_label(method.label()), Some(method));
            let spec = section(json!({"methods": [method.label()]})).unwrap();
            assert_eq!(spec.methods, [method]);
        }
        for objective in FitObjective::ALL {
            let spec = section(json!({"objective": objective.label()})).unwrap();
            assert_eq!(spec.objective, objective);
        }
        let all = FitSettings { group_by: Some(String::new()), ..FitSettings::default() };
        assert_eq!(change(&all).unwrap().group_by, Some(None));
    }
}
