//! What a study file may say and yet seldom means.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use domain::recipe::{CellConfig, n_decay_steps, schedule_share};
use domain::spec::{
    CheckpointSpec, DesignSpec, FitMethod, PretrainSpec, StudySpec, WeightAverageSpec,
};

use crate::{Plan, PlannedCell, PlannedPreparation};

/// The warnings of a plan, each a sentence.
pub(crate) fn of(spec: &StudySpec, pretrain: &PretrainSpec, plan: &Plan) -> Vec<String> {
    let mut warnings = Vec::new();
    warnings.extend(unlike_checkpoints(spec, &plan.cells));
    warnings.extend(repeated_texts(spec, &plan.preparation));
    warnings.extend(no_measurement(spec, pretrain));
    warnings.extend(points_in_warm_up(&plan.cells));
    warnings.extend(late_first_points(pretrain, &plan.cells));
    warnings.extend(short_decays(&plan.cells));
    warnings.extend(stuck_averages(&plan.cells));
    if spec.fit.methods.contains(&FitMethod::Isoflop)
        && !matches!(pretrain.design, DesignSpec::Isoflop { .. })
    {
        warnings.push(
            "`fit.methods` has `isoflop`, but the design has no budgets at which sizes could be \
             compared"
                .to_owned(),
        );
    }
    warnings.extend(unlike_texts(pretrain, &plan.cells));
    warnings.extend(no_seeds(spec, plan));
    warnings.extend(shared_runs(&plan.cells));
    warnings.extend(idle_slots(spec));
    warnings
}

/// What stands twice counts twice, in training and in validation.
fn repeated_texts(spec: &StudySpec, preparation: &PlannedPreparation) -> Option<String> {
    let mut corpora_of: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for (corpus, source) in spec.data.corpora.iter().zip(&preparation.config.sources) {
        for hash in &source.file_hashes {
            // Another field of the same lines is another text.
            let text = (hash.as_str(), source.text_field.as_str());
            corpora_of.entry(text).or_default().push(&corpus.name);
        }
    }
    let repeated: Vec<&Vec<&str>> = corpora_of.values().filter(|of| of.len() > 1).collect();
    let names: BTreeSet<&str> = repeated.iter().flat_map(|of| of.iter().copied()).collect();
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    let n_copies: usize = repeated.iter().map(|of| of.len() - 1).sum();
    (n_copies > 0).then(|| {
        format!(
            "`data.corpora` has {n_copies} files with the bytes of another one, in {}: such a text \
             is trained on more than once; name it once",
            names.join(" and ")
        )
    })
}

/// Fits take losses that were measured on checkpoints, not those of the training.
fn no_measurement(spec: &StudySpec, pretrain: &PretrainSpec) -> Option<String> {
    let methods: Vec<String> =
        spec.fit.methods.iter().map(|method| format!("`{}`", method.label())).collect();
    pretrain.evaluate.is_empty().then(|| {
        format!(
            "`evaluate` is empty, so no loss is measured that {} of `fit.methods` could fit; leave \
             the key out, or name `validation_loss`",
            methods.join(" and ")
        )
    })
}

/// A cell that ends before its first data point has the last step alone.
fn late_first_points(pretrain: &PretrainSpec, cells: &[PlannedCell]) -> Option<String> {
    let CheckpointSpec::LogSpaced { first_step: Some(first_step), .. } = pretrain.checkpoints
    else {
        return None;
    };
    let n_steps = |planned: &PlannedCell| {
        let CellConfig::Pretrain(cell) = &planned.seedless.config;
        cell.steps
    };
    let ends_before = |cell: &&PlannedCell| n_steps(cell) <= first_step;
    let n = cells.iter().filter(ends_before).count();
    cells.iter().find(ends_before).map(|cell| {
        format!(
            "`checkpoints.log_spaced.first_step` is {first_step}, and {n} of {} cells have no more \
             steps than that (`{}` has {}): their last step is their only data point; set it lower",
            cells.len(),
            cell.name,
            n_steps(cell)
        )
    })
}

/// More slots make no run faster.
fn idle_slots(spec: &StudySpec) -> Option<String> {
    let n_slots = spec.runtime.placement.n_slots();
    (n_slots > 1).then(|| {
        format!(
            "`runtime.placement.slots` is {n_slots}: a run holds so many slots, and trains on the \
             first alone; training over several slots is not there yet"
        )
    })
}

/// Under a decaying schedule a checkpoint on the way is not what a shorter run would have been.
fn unlike_checkpoints(spec: &StudySpec, cells: &[PlannedCell]) -> Option<String> {
    let is_decaying = |planned: &&PlannedCell| {
        let CellConfig::Pretrain(cell) = &planned.seedless.config;
        cell.training.schedule.is_decaying() && planned.seedless.data_point_steps.len() > 1
    };
    let methods: Vec<String> = spec
        .fit
        .methods
        .iter()
        .filter_map(|method| match method {
            // It looks at the ends of runs only.
            FitMethod::Isoflop => None,
            method => Some(format!("`{}`", method.label())),
        })
        .collect();
    if methods.is_empty() {
        return None;
    }
    cells.iter().find(is_decaying).map(|cell| {
        format!(
            "`fit.methods` has {}, but the learning rate of `{}` decays: its checkpoints on the way \
             are not comparable with the ends of shorter runs; use a constant schedule, or \
             `checkpoints: final`",
            methods.join(" and "),
            cell.name
        )
    })
}

/// So many sequences are another amount of text where sequences have another length.
fn unlike_texts(pretrain: &PretrainSpec, cells: &[PlannedCell]) -> Option<String> {
    let n_sequences = pretrain.evaluate.iter().find_map(|evaluate| evaluate.sequences)?;
    let lengths = cells.iter().map(|planned| {
        let CellConfig::Pretrain(cell) = &planned.seedless.config;
        cell.training.sequence_length
    });
    let (shortest, longest) = (lengths.clone().min()?, lengths.max()?);
    (shortest < longest).then(|| {
        format!(
            "`training.sequence_length` differs between cells ({shortest} to {longest}), but \
             `evaluate` measures {n_sequences} `sequences` of each: their losses are of unlike \
             texts; leave `sequences` out"
        )
    })
}

/// Fits take runs of one group, N and budget for repetitions with other seeds.
fn no_seeds(spec: &StudySpec, plan: &Plan) -> Vec<String> {
    let group_by = spec.fit.group_by.as_deref();
    let mut first: BTreeMap<_, &PlannedCell> = BTreeMap::new();
    let mut said: BTreeSet<String> = BTreeSet::new();
    let mut warnings = Vec::new();
    for planned in &plan.cells {
        let seedless = &planned.seedless;
        let group = group_by.and_then(|axis| planned.axis_values.get(axis));
        let budget = seedless.budget_flops.map(f64::to_bits);
        let key = (group, seedless.parameters(spec.fit.parameters), budget);
        let earlier = *first.entry(key).or_insert(planned);
        let is_same = Arc::ptr_eq(&earlier.seedless, seedless);
        if is_same || earlier.seedless.config == seedless.config {
            continue;
        }
        let differs = |axis: &&String| {
            Some(axis.as_str()) != group_by
                && planned.axis_values.get(axis) != earlier.axis_values.get(axis)
        };
        let axes: Vec<String> =
            plan.axes.iter().filter(differs).map(|axis| format!("`{axis}`")).collect();
        let axes = axes.join(" and ");
        if said.insert(axes.clone()) {
            warnings.push(format!(
                "`{}` and `{}` have the same N in one group of the fit and differ in {axes}, not \
                 only in the seed: a fit would average them as if they were seeds; set \
                 `fit.group_by` to that axis, or make it a study of its own",
                earlier.name, planned.name
            ));
        }
    }
    warnings
}

fn points_in_warm_up(cells: &[PlannedCell]) -> Option<String> {
    let inside = |planned: &&PlannedCell| {
        let CellConfig::Pretrain(cell) = &planned.seedless.config;
        planned.seedless.data_point_steps[0] < cell.training.schedule.warmup_steps()
    };
    let n = cells.iter().filter(inside).count();
    cells.iter().find(inside).map(|cell| {
        format!(
            "{n} of {} cells have a data point inside the warm-up (`{}` at step {}), where the loss \
             says little; set `checkpoints.log_spaced.first_step`",
            cells.len(),
            cell.name,
            cell.seedless.data_point_steps[0]
        )
    })
}

/// With fewer steps the rate ends far above zero, and other cells end nearer to it.
const FEW_DECAY_STEPS: u64 = 10;

/// Runs that end at another part of the peak have another loss for that reason alone.
fn short_decays(cells: &[PlannedCell]) -> Option<String> {
    let n_steps = |planned: &PlannedCell| {
        let CellConfig::Pretrain(cell) = &planned.seedless.config;
        n_decay_steps(&cell.training.schedule, cell.steps)
    };
    let is_short = |cell: &&PlannedCell| n_steps(cell).is_some_and(|n| n < FEW_DECAY_STEPS);
    let n = cells.iter().filter(is_short).count();
    let shortest = cells.iter().filter(is_short).min_by_key(|cell| n_steps(cell))?;
    let n_least = n_steps(shortest)?;
    let CellConfig::Pretrain(cell) = &shortest.seedless.config;
    let share = schedule_share(&cell.training.schedule, cell.steps.saturating_sub(1), cell.steps);
    Some(format!(
        "{n} of {} cells decay over fewer than {FEW_DECAY_STEPS} steps (`{}` over {n_least}, and ends at \
         {share:.2} of the peak learning rate): they are not comparable with longer ones, which end \
         nearer to zero; set a larger `decay_share` or more tokens",
        cells.len(),
        shortest.name,
    ))
}

/// Above this an average in float32 loses weights that matter: 0.03 % of themselves at the limit.
const LARGEST_EXACT_DECAY: f64 = 0.9999;

/// 2⁻²⁵: what is added to a float32 number and is less than this share of it leaves it as it was.
const LOST_SHARE: f64 = 1.0 / 33_554_432.0;

/// An average moves by (1 - decay) of its distance from the weight, rounded to float32's digits.
fn stuck_averages(cells: &[PlannedCell]) -> Option<String> {
    let decay = |planned: &PlannedCell| {
        let CellConfig::Pretrain(cell) = &planned.seedless.config;
        cell.training.weight_average.map(|WeightAverageSpec::Ema { decay }| decay)
    };
    let of_cells = cells.iter().filter_map(|cell| Some((cell, decay(cell)?)));
    let stuck: Vec<_> = of_cells.filter(|(_, decay)| *decay > LARGEST_EXACT_DECAY).collect();
    let (worst, decay) = stuck.iter().max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    Some(format!(
        "{} of {} cells average their weights with a decay above {LARGEST_EXACT_DECAY} (`{}` with \
         {decay}): in float32 an average no longer follows weights that are within {:.2} % of it; \
         set a smaller `weight_average.ema.decay`",
        stuck.len(),
        cells.len(),
        worst.name,
        100.0 * LOST_SHARE / (1.0 - decay),
    ))
}

fn shared_runs(cells: &[PlannedCell]) -> Vec<String> {
    let mut first: HashMap<&str, &str> = HashMap::new();
    let mut warnings = Vec::new();
    for cell in cells {
        let earlier = *first.entry(cell.run_id.as_str()).or_insert(&cell.name);
        if earlier != cell.name {
            warnings.push(format!(
                "`{}` is the same configuration as `{earlier}`; it is trained once",
                cell.name
            ));
        }
    }
    warnings
}
