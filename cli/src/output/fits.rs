//! Stored fits, and what one of them predicts.
//!
//! It predicts nothing.

use api::{EstimateView, FitList, FitPrediction, FitPredictionList, FitSummary};

use super::fit_parts::{Footnotes, number};
use super::{View, format, rows_or_nothing, sections, table};

impl View for FitList {
    fn table(&self) -> String {
        let row = |fit: &FitSummary| {
            vec![
                fit.id.clone(),
                fit.study.clone(),
                format::time(fit.created_at_ms),
                if fit.is_provisional { "provisional" } else { "final" }.to_owned(),
                fit.methods.join(", "),
                fit.groups.join(", "),
                fit.n_observations.to_string(),
                fit.draws.to_string(),
            ]
        };
        let columns = ["FIT", "STUDY", "MADE", "", "METHODS", "GROUPS", ">POINTS", ">DRAWS"];
        rows_or_nothing(&columns, self.fits.iter().map(row).collect())
    }

    fn names(&self) -> Vec<String> {
        self.fits.iter().map(|fit| fit.id.clone()).collect()
    }
}

impl View for FitPredictionList {
    fn table(&self) -> String {
        let provisional = if self.is_provisional { ", provisional" } else { "" };
        let head = format!(
            "fit `{}` of study `{}`{provisional}; N: {}; C: {}; {:.0} % intervals",
            self.fit,
            self.study,
            self.parameter_kind,
            self.flop_kind,
            100.0 * self.confidence
        );
        let mut notes = Footnotes::default();
        let rows = self.predictions.iter().map(|one| row(one, &mut notes)).collect();
        let columns = ["GROUP", "METHOD", ">C", "N", "D", "LOSS", "OF A NEW RUN"];
        let along = along(&self.predictions, &mut notes);
        let mut warnings: Vec<String> = Vec::new();
        for one in &self.predictions {
            for text in &one.warnings {
                warnings.push(format!("warning: {}, {}: {text}", one.group, one.method));
            }
        }
        sections(&[head, table(&columns, rows), along, notes.text(), warnings.join("\n")])
    }

    fn names(&self) -> Vec<String> {
        let value = |one: &FitPrediction| match &one.loss_nats {
            EstimateView::Identified { value, .. } => value.to_string(),
            EstimateView::NotIdentified { .. } => "not identified".to_owned(),
        };
        self.predictions.iter().map(value).collect()
    }
}

fn row(one: &FitPrediction, notes: &mut Footnotes) -> Vec<String> {
    let loss = |value: f64| format!("{value:.4}");
    vec![
        one.group.clone(),
        one.method.clone(),
        format::optional(one.flops, format::flops),
        estimate(&one.parameters, number, notes),
        estimate(&one.tokens, number, notes),
        estimate(&one.loss_nats, loss, notes),
        estimate(&one.measured_loss_nats, loss, notes),
    ]
}

/// Where a budget is spent best along the trained sizes; nothing where no line knows them.
fn along(predictions: &[FitPrediction], notes: &mut Footnotes) -> String {
    let loss = |value: f64| format!("{value:.4}");
    let mut rows = Vec::new();
    for one in predictions {
        let Some(best) = &one.along_sizes else { continue };
        rows.push(vec![
            one.group.clone(),
            one.method.clone(),
            format::optional(one.flops, format::flops),
            estimate(&best.parameters, number, notes),
            estimate(&best.tokens, number, notes),
            estimate(&best.loss_nats, loss, notes),
            format::optional(best.rung_parameters, number),
        ]);
    }
    if rows.is_empty() {
        return String::new();
    }
    let columns = ["GROUP", "METHOD", ">C", "N", "D", "LOSS", ">BEST SIZE"];
    let title = "along the trained sizes, each with its own FLOPs for a token";
    format!("{title}\n{}", table(&columns, rows))
}

/// A value with its interval; what was given has none.
fn estimate(view: &EstimateView, text: impl Fn(f64) -> String, notes: &mut Footnotes) -> String {
    match view {
        EstimateView::Identified { value, low, high } if low == high => text(*value),
        EstimateView::Identified { value, low, high } => {
            format!("{}\n[{}, {}]", text(*value), text(*low), text(*high))
        }
        EstimateView::NotIdentified { reason } => {
            format!("not\nidentified {}", notes.mark(reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use api::LadderPrediction;

    use super::*;

    fn identified(value: f64) -> EstimateView {
        EstimateView::Identified { value, low: 0.9 * value, high: 1.1 * value }
    }

    #[test]
    fn predictions_stand_beside_what_they_are_of() {
        let law = FitPrediction {
            group: "tnl".into(),
            method: "chinchilla".into(),
            flops: Some(1e21),
            parameters: identified(4.2e9),
            tokens: identified(4e10),
            loss_nats: identified(2.25),
            measured_loss_nats: identified(2.25),
            flops_per_parameter_token: Some(6.0),
            along_sizes: Some(LadderPrediction {
                parameters: identified(4.1e9),
                tokens: identified(3.9e10),
                loss_nats: identified(2.26),
                rung_parameters: Some(4e9),
                share_at_end: 0.0,
            }),
            extrapolation: Some(40.0),
            warnings: vec!["far-extrapolation: C is 40 times the largest fitted one".into()],
        };
        let reason = || EstimateView::NotIdentified { reason: "one size".into() };
        let none = FitPrediction {
            method: "envelope".into(),
            parameters: reason(),
            tokens: reason(),
            loss_nats: reason(),
            measured_loss_nats: reason(),
            along_sizes: None,
            warnings: Vec::new(),
            ..law.clone()
        };
        let list = FitPredictionList {
            fit: "f_1".into(),
            study: "demo".into(),
            is_provisional: true,
            parameter_kind: "non_embedding".into(),
            flop_kind: "exact".into(),
            confidence: 0.95,
            predictions: vec![law, none],
        };
        insta::assert_snapshot!(list.table(), @r"
        fit `f_1` of study `demo`, provisional; N: non_embedding; C: exact; 95 % intervals

        GROUP  METHOD            C  N             D             LOSS         OF A NEW
                                                                             RUN
        tnl    chinchilla  1.00e21  4.20e9        4.00e10       2.2500       2.2500
                                    [3.78e9,      [3.60e10,     [2.0250,     [2.0250,
                                    4.62e9]       4.40e10]      2.4750]      2.4750]
        tnl    envelope    1.00e21  not           not           not          not
                                    identified    identified    identified   identified
                                    (1)           (1)           (1)          (1)

        along the trained sizes, each with its own FLOPs for a token
        GROUP  METHOD            C  N         D          LOSS              BEST SIZE
        tnl    chinchilla  1.00e21  4.10e9    3.90e10    2.2600               4.00e9
                                    [3.69e9,  [3.51e10,  [2.0340, 2.4860]
                                    4.51e9]   4.29e10]

        (1) one size

        warning: tnl, chinchilla: far-extrapolation: C is 40 times the largest fitted one
        ");
        assert_eq!(list.names(), ["2.25", "not identified"]);
    }
}
