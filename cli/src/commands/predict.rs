//! `gradus predict`: a loss, or the best size for a budget, from a saved fit.

use api::EstimateView;
use scaling::interval::{Estimate, Inference, OptimumEstimate};
use scaling::law::{LogPoint, Variable};
use scaling::observation::Covariates;
use scaling::outside::Standing;

use self::then::Then;
use crate::args::{Global, PredictArgs};
use crate::failure::Failure;
use crate::fit_document::{
    EPOCHS, FitDocument, Restored, TOKENS_PER_PARAMETER, estimate_view, ladder_view,
};
use crate::output::Form;
use crate::output::predict::{
    ExtrapolationView, OptimumView, PlaceView, PredictionList, PredictionView,
};

mod then;

pub(super) fn run(global: &Global, args: &PredictArgs) -> Result<(), Failure> {
    check(args).map_err(Failure::Wrong)?;
    let document = FitDocument::read(&args.file)?;
    let fits = document.restore(&args.file, args.group.as_deref())?;
    let then = args.then.as_deref().map(|file| Then::read(file, &document)).transpose()?;
    let predict = |fit: &Restored| {
        let asked = Asked { args, fit };
        let view = asked.predict()?;
        match &then {
            Some(then) => then.carry_on(&asked, view),
            None => Ok(view),
        }
    };
    let predictions = fits.iter().map(predict).collect::<anyhow::Result<Vec<_>>>();
    let list = PredictionList {
        fit: args.file.display().to_string(),
        input: document.input.file.clone(),
        input_blake3: document.input.blake3.clone(),
        predictions: predictions.map_err(Failure::Wrong)?,
    };
    Form::of(args.json, global.quiet).print(&list)?;
    Ok(())
}

/// Numbers that no run can have are refused by name.
fn check(args: &PredictArgs) -> anyhow::Result<()> {
    let positive = [
        ("--n", args.n),
        ("--d", args.d),
        ("--c", args.c),
        ("--unique", args.unique),
        ("--bits", args.bits),
        ("--bits-activations", args.bits_activations),
        ("--bits-cache", args.bits_cache),
        ("--rate-sum", args.rate_sum),
    ];
    for (flag, value) in positive {
        if let Some(value) = value {
            let is_valid = value.is_finite() && value > 0.0;
            anyhow::ensure!(is_valid, "`{flag}` must be finite and above zero, found {value}");
        }
    }
    for (flag, value) in [("--loss", args.loss), ("--rate-fall", args.rate_fall)] {
        if let Some(value) = value {
            anyhow::ensure!(value.is_finite(), "`{flag}` must be finite, found {value}");
        }
    }
    Ok(())
}

/// A question to one fit.
struct Asked<'a> {
    args: &'a PredictArgs,
    fit: &'a Restored,
}

impl Asked<'_> {
    fn inference(&self) -> &Inference {
        &self.fit.inference
    }

    fn needs(&self, variable: Variable) -> bool {
        self.inference().form.law().variables().contains(&variable)
    }

    fn kappa(&self) -> Option<f64> {
        self.fit.saved.conventions.flops_per_parameter_token
    }

    /// Refuses a flag of a variable that the law does not look at, and that would change nothing.
    fn check(&self) -> anyhow::Result<()> {
        let args = self.args;
        let [weights, activations, cache] = Variable::BITS;
        let others = [
            (Variable::UniqueTokens, args.unique, "--unique"),
            (weights, args.bits, "--bits"),
            (activations, args.bits_activations, "--bits-activations"),
            (cache, args.bits_cache, "--bits-cache"),
            (Variable::TaskLoss, args.loss, "--loss"),
            (Variable::RateSum, args.rate_sum, "--rate-sum"),
            (Variable::RateFall, args.rate_fall, "--rate-fall"),
        ];
        for (variable, value, flag) in others {
            anyhow::ensure!(
                value.is_none() || self.needs(variable),
                "`{flag}` is the {variable}, which `{}` does not look at",
                self.fit.saved.law
            );
        }
        Ok(())
    }

    fn predict(&self) -> anyhow::Result<PredictionView> {
        self.check()?;
        let is_joint = self.needs(Variable::Parameters) && self.needs(Variable::Tokens);
        let is_budget = self.args.n.is_none() && self.args.d.is_none();
        match self.args.c {
            Some(flops) if is_joint && is_budget => self.at_budget(flops),
            _ => self.at_point(),
        }
    }

    /// N, D and C, the one that is not given from the others by κ.
    fn place(&self) -> anyhow::Result<PlaceView> {
        let (args, law) = (self.args, &self.fit.saved.law);
        let (mut n, mut d, mut c) = (args.n, args.d, args.c);
        if let (Some(n), Some(d), Some(_)) = (n, d, c) {
            anyhow::ensure!(
                self.needs(Variable::Flops),
                "`--n {n}`, `--d {d}` and `--c` together: `{law}` does not look at C; give two of them"
            );
        }
        if let Some(kappa) = self.kappa() {
            match (n, d, c) {
                (Some(n), Some(d), None) => c = Some(kappa * n * d),
                (Some(n), None, Some(c)) => d = Some(c / (kappa * n)),
                (None, Some(d), Some(c)) => n = Some(c / (kappa * d)),
                _ => {}
            }
        }
        let asked = [
            (Variable::Parameters, n, "--n"),
            (Variable::Tokens, d, "--d"),
            (Variable::Flops, c, "--c"),
            (Variable::WeightBits, args.bits, "--bits"),
            (Variable::ActivationBits, args.bits_activations, "--bits-activations"),
            (Variable::CacheBits, args.bits_cache, "--bits-cache"),
            (Variable::TaskLoss, args.loss, "--loss"),
            (Variable::RateSum, args.rate_sum, "--rate-sum"),
            (Variable::RateFall, args.rate_fall, "--rate-fall"),
        ];
        for (variable, value, flag) in asked {
            anyhow::ensure!(
                value.is_some() || !self.needs(variable),
                "`{law}` needs the {variable}: give `{flag} NUMBER`"
            );
        }
        Ok(PlaceView { n, d, c })
    }

    /// What the law looks at, at this place.
    fn point(&self, place: PlaceView) -> LogPoint {
        let args = self.args;
        let known = |value: Option<f64>| value.unwrap_or(f64::NAN);
        let rates = args.rate_sum.zip(args.rate_fall);
        let covariates = Covariates {
            unique_tokens: args.unique,
            bits: [args.bits, args.bits_activations, args.bits_cache],
            task_loss: args.loss,
            rates,
            weight: 1.0,
        };
        LogPoint::new(known(place.n), known(place.d), known(place.c)).with(&covariates)
    }

    fn at_point(&self) -> anyhow::Result<PredictionView> {
        let place = self.place()?;
        let prediction = self.inference().predict_at(&self.point(place));
        let views = (estimate_view(&prediction.curve), estimate_view(&prediction.measured));
        Ok(self.view(place, views))
    }

    fn at_budget(&self, flops: f64) -> anyhow::Result<PredictionView> {
        let law = &self.fit.saved.law;
        let kappa = self.kappa();
        let optimum = kappa.and_then(|kappa| self.inference().optimum(flops, kappa));
        let Some((optimum, kappa)) = optimum.zip(kappa) else {
            anyhow::bail!(
                "`{law}` has no best size for a budget in closed form; give two of `--n`, `--d` and `--c`"
            );
        };
        let measured = match &optimum.loss_nats {
            Estimate::Identified { .. } => self.inference().optimum_measured(flops, kappa),
            blocked @ Estimate::NotIdentified { .. } => blocked.clone(),
        };
        let views = (estimate_view(&optimum.loss_nats), estimate_view(&measured));
        let place =
            PlaceView { n: optimum.parameters.value(), d: optimum.tokens.value(), c: Some(flops) };
        let sizes = self.fit.sizes.as_ref();
        let along = sizes.and_then(|sizes| sizes.estimate(self.inference(), flops));
        Ok(PredictionView {
            optimum: Some(Self::optimum_view(&optimum, flops, kappa)),
            along_sizes: along.as_ref().map(ladder_view),
            ..self.view(place, views)
        })
    }

    fn optimum_view(optimum: &OptimumEstimate, flops: f64, kappa: f64) -> OptimumView {
        // D / N = C / (κ N²), from the same draws.
        let ratio = match &optimum.parameters {
            Estimate::Identified { value, low, high } => {
                let ratio = |n: f64| flops / (kappa * n * n);
                let (low, high) = (ratio(*high), ratio(*low));
                Estimate::Identified { value: ratio(*value), low, high }
            }
            blocked @ Estimate::NotIdentified { .. } => blocked.clone(),
        };
        OptimumView {
            n: estimate_view(&optimum.parameters),
            d: estimate_view(&optimum.tokens),
            tokens_per_parameter: estimate_view(&ratio),
            n_exponent: estimate_view(&optimum.parameters_exponent),
        }
    }

    fn view(
        &self,
        at: PlaceView,
        (curve, measured): (EstimateView, EstimateView),
    ) -> PredictionView {
        let saved = &self.fit.saved;
        let extrapolation = self.extrapolation(at);
        PredictionView {
            group: saved.group.clone(),
            law: saved.law.clone(),
            formula: saved.formula.clone(),
            conventions: saved.conventions.clone(),
            at,
            optimum: None,
            along_sizes: None,
            accuracy: None,
            curve,
            measured,
            level: saved.level,
            intervals: self.inference().resampled.scheme.to_string(),
            warnings: self.warnings(at, &extrapolation),
            extrapolation,
        }
    }

    /// Distinct tokens among D, as the law counts them: no more than all, and all where nothing is said.
    fn unique_tokens(&self, at: PlaceView) -> Option<f64> {
        match (self.args.unique, at.d) {
            (Some(unique), Some(d)) => Some(unique.min(d)),
            (unique, d) => unique.or(d),
        }
    }

    /// How far each variable that is known here is from the fitted ones, and each ratio of them.
    fn extrapolation(&self, at: PlaceView) -> Vec<ExtrapolationView> {
        let (ranges, args) = (&self.fit.saved.ranges, self.args);
        let [weights, activations, cache] = Variable::BITS;
        let unique = self.unique_tokens(at);
        let others = [
            (Variable::UniqueTokens, unique),
            (weights, args.bits),
            (activations, args.bits_activations),
            (cache, args.bits_cache),
            (Variable::TaskLoss, args.loss),
            (Variable::RateSum, args.rate_sum),
            (Variable::RateFall, args.rate_fall),
        ];
        let ratio = |one: Option<f64>, other: Option<f64>| Some(one? / other?);
        let ratios = [(TOKENS_PER_PARAMETER, ratio(at.d, at.n)), (EPOCHS, ratio(at.d, unique))];
        let named = others.into_iter().map(|(variable, value)| (variable.label(), value));
        let of_others = named
            .chain(ratios)
            .map(|(name, value)| (name, value, ranges.others.get(name).copied()));
        let own = [("N", at.n, ranges.n), ("D", at.d, ranges.d), ("C", at.c, ranges.c)];
        own.into_iter()
            .chain(of_others)
            .filter_map(|(variable, value, range)| {
                let (value, [low, high]) = (value?, range?);
                let Standing { is_inside, factor, .. } = Standing::of(value, (low, high));
                let variable = variable.to_owned();
                Some(ExtrapolationView { variable, value, low, high, is_inside, factor })
            })
            .collect()
    }

    /// The warnings about this place, then those of the fit itself, which say where one κ stands
    /// for several.
    fn warnings(&self, at: PlaceView, extrapolation: &[ExtrapolationView]) -> Vec<String> {
        let about = |one: &ExtrapolationView| {
            Standing::of(one.value, (one.low, one.high)).warning(&one.variable)
        };
        let mut warnings: Vec<String> = extrapolation.iter().filter_map(about).collect();
        let above = self.args.unique.zip(at.d).filter(|(unique, d)| unique > d);
        warnings.extend(above.map(|(unique, d)| {
            format!(
                "unique-above-d: `--unique {unique}` is more than D = {d:.3e}; it counts as D, so that \
                 nothing is repeated"
            )
        }));
        warnings.extend(self.fit.saved.own_warnings());
        warnings
    }
}
