//! The accuracy that goes with a predicted task loss, from a second saved fit.

use std::path::Path;

use scaling::chain::{self, Chained};
use scaling::law::{LawName, Variable};
use scaling::outside::Standing;

use super::Asked;
use crate::failure::Failure;
use crate::fit_document::{FitDocument, Restored, estimate_view};
use crate::output::predict::{AccuracyView, ExtrapolationView, PredictionView};

/// A saved fit of `sigmoid`, to be asked for the accuracy at what another predicts.
pub(super) struct Then {
    name: String,
    document: FitDocument,
    fits: Vec<Restored>,
    /// That the two fits do not read the task loss from columns of one name.
    doubt: Option<String>,
}

impl Then {
    /// Reads `file`, which goes on from the fits of `first`.
    pub(super) fn read(file: &Path, first: &FitDocument) -> Result<Self, Failure> {
        let document = FitDocument::read(file)?;
        let fits = document.restore(file, None)?;
        let name = file.display().to_string();
        let sigmoid = LawName::Sigmoid;
        if let Some(other) = fits.iter().find(|fit| fit.inference.law != sigmoid) {
            return Err(Failure::wrong(format!(
                "`--then {name}` is a fit of `{}`; only `{sigmoid}` gives the accuracy at a task loss",
                other.saved.law
            )));
        }
        if first.fits.iter().any(|fit| fit.law == sigmoid.label()) {
            return Err(Failure::wrong(format!(
                "`--then {name}` goes on from a task loss, and the first fit gives an accuracy: put \
                 the fit of the task loss first"
            )));
        }
        let columns = [&first.request.columns.loss, &document.request.columns.loss];
        let doubt = match columns {
            [Some(fitted), Some(read)] if fitted != read => Some(format!(
                "task-loss: the loss that is predicted is column `{fitted}`, and that of `{name}` is \
                 column `{read}`; the accuracy is right only where they are one"
            )),
            _ => None,
        };
        Ok(Self { name, document, fits, doubt })
    }

    /// Adds the accuracy to a prediction of the task loss.
    pub(super) fn carry_on(
        &self,
        asked: &Asked<'_>,
        mut view: PredictionView,
    ) -> anyhow::Result<PredictionView> {
        let second = self.of_group(view.group.as_deref())?;
        let found = Self::chained(asked, &view, second)?;
        let task_loss = estimate_value(&view);
        let range = second.saved.ranges.others.get(Variable::TaskLoss.label()).copied();
        if let Some((value, [low, high])) = task_loss.zip(range) {
            let standing = Standing::of(value, (low, high));
            let variable = Variable::TaskLoss.label().to_owned();
            let at = view.warnings.iter().position(|text| text.starts_with("of the fit: "));
            let at = at.unwrap_or(view.warnings.len());
            view.warnings.splice(at..at, standing.warning(&variable));
            let Standing { is_inside, factor, .. } = standing;
            view.extrapolation.push(ExtrapolationView {
                variable,
                value,
                low,
                high,
                is_inside,
                factor,
            });
        }
        view.warnings.extend(self.doubt.clone());
        let own = second.saved.warnings.iter();
        view.warnings.extend(own.map(|text| format!("of `{}`: {text}", self.name)));
        view.accuracy = Some(AccuracyView {
            fit: self.name.clone(),
            input: self.document.input.file.clone(),
            input_blake3: self.document.input.blake3.clone(),
            formula: second.saved.formula.clone(),
            curve: estimate_view(&found.accuracy),
            measured: estimate_view(&found.measured),
            intervals: second.inference.resampled.scheme.to_string(),
        });
        Ok(view)
    }

    /// The fit of this group, or the only one.
    fn of_group(&self, group: Option<&str>) -> anyhow::Result<&Restored> {
        if let [only] = self.fits.as_slice()
            && only.saved.group.is_none()
        {
            return Ok(only);
        }
        let same = self.fits.iter().find(|fit| fit.saved.group.as_deref() == group);
        same.ok_or_else(|| {
            let names = self.fits.iter().filter_map(|fit| fit.saved.group.as_deref());
            let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
            let asked = group.map_or("a fit of all rows".to_owned(), |name| format!("`{name}`"));
            anyhow::anyhow!(
                "`--then {}` has fits of {}, and none of {asked}",
                self.name,
                names.join(", ")
            )
        })
    }

    fn chained(
        asked: &Asked<'_>,
        view: &PredictionView,
        second: &Restored,
    ) -> anyhow::Result<Chained> {
        let (first, second) = (asked.inference(), &second.inference);
        if view.optimum.is_none() {
            return Ok(chain::estimate(first, second, &asked.point(view.at)));
        }
        let at_budget = asked
            .args
            .c
            .zip(asked.kappa())
            .and_then(|(flops, kappa)| chain::estimate_at_budget(first, second, flops, kappa));
        at_budget.ok_or_else(|| {
            anyhow::anyhow!("`{}` has no best size for a budget in closed form", view.law)
        })
    }
}

fn estimate_value(view: &PredictionView) -> Option<f64> {
    match view.curve {
        api::EstimateView::Identified { value, .. } => Some(value),
        api::EstimateView::NotIdentified { .. } => None,
    }
}
