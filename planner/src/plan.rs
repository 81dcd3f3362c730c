//! What a plan is, and how it is made.

use std::collections::{BTreeMap, BTreeSet};

use domain::cell::Identity;
use domain::ids::{PreparationId, RunId};
use domain::recipe::{
    CellConfig, MAX_SOURCE_FILES, NUMERICS_VERSION, PREPARATION_VERSION, PreparationConfig,
    PretrainCell, SourceConfig, schedule_overlap,
};
use domain::spec::{DesignSpec, ParsedSpec, PretrainSpec, RecipeSpec, SpecError};
use domain::suggest::nearest;

use crate::axes::{Combination, combinations};
use crate::cell::{configure, named};
use crate::design::{Length, close_budget, data_point_steps, lengths};
use crate::trunks::{self, PlannedTrunk};
use crate::{AT, CorpusHashes, warnings};

/// A planned study.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The study's name.
    pub study: String,
    /// The stage's name.
    pub stage: String,
    /// The names of the axes in order.
    pub axes: Vec<String>,
    /// The data that every cell needs.
    pub preparation: PlannedPreparation,
    /// The cells in the order of the axes, and within that of the budgets.
    pub cells: Vec<PlannedCell>,
    /// What was left out and why.
    pub dropped: Vec<DroppedCell>,
    /// What is allowed and yet seldom meant.
    pub warnings: Vec<String>,
}

/// The data preparation of a study.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedPreparation {
    /// Its identifier, made from the hash.
    pub id: PreparationId,
    /// Its key.
    pub identity: Identity,
    /// What it makes.
    pub config: PreparationConfig,
}

/// One planned cell.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedCell {
    /// Its name within the stage.
    pub name: String,
    /// The value of each axis, as text.
    pub axis_values: BTreeMap<String, String>,
    /// The run of its identity.
    pub run_id: RunId,
    /// Its key.
    pub identity: Identity,
    /// What it trains.
    pub config: CellConfig,
    /// The budget it belongs to, for isoFLOP designs.
    pub budget_flops: Option<f64>,
    /// The steps (counted from 1) that leave a data-point checkpoint, ascending; the last step is
    /// always one of them.
    pub data_point_steps: Vec<u64>,
    /// Estimated peak memory of training in bytes, beside libtorch itself.
    pub memory_bytes: u64,
    /// Where it stands in its trunk, in a study that shares them and under a schedule that has one.
    pub trunk: Option<PlannedTrunk>,
}

/// A cell that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedCell {
    /// Its name within the stage.
    pub name: String,
    /// Why it was left out, with the numbers.
    pub reason: String,
}

/// See [`crate::plan`].
pub(crate) fn plan(parsed: &ParsedSpec, sources: &[CorpusHashes]) -> Result<Plan, SpecError> {
    let spec = &parsed.spec;
    let stage = &spec.stages[0];
    let RecipeSpec::Pretrain(pretrain) = &stage.recipe;
    check_group_by(parsed, pretrain)?;
    check_budgets(parsed, pretrain)?;
    let preparation = prepare(parsed, sources)?;
    let planner = Planner { parsed, pretrain, preparation: &preparation, stage: &stage.name };
    let (mut cells, mut dropped, mut met) = (Vec::new(), Vec::new(), BTreeSet::new());
    for combination in combinations(pretrain, &parsed.locations)? {
        for (length, cell) in planner.cells(&combination)? {
            let budget = length.budget.map_or(0, |(index, _)| index);
            match cell {
                Ok(cell) => {
                    met.insert(budget);
                    cells.push(cell);
                }
                Err(cell) => dropped.push((budget, cell)),
            }
        }
    }
    planner.refuse_unmet_budgets(&met, &dropped)?;
    planner.refuse_equal_names(&cells)?;
    planner.share_trunks(&mut cells)?;
    let mut plan = Plan {
        study: spec.name.clone(),
        stage: stage.name.clone(),
        axes: pretrain.axes.iter().map(|axis| axis.name.clone()).collect(),
        preparation,
        cells,
        dropped: dropped.into_iter().map(|(_, cell)| cell).collect(),
        warnings: Vec::new(),
    };
    plan.warnings = warnings::of(spec, pretrain, &plan);
    Ok(plan)
}

/// Groups are values of an axis.
fn check_group_by(parsed: &ParsedSpec, pretrain: &PretrainSpec) -> Result<(), SpecError> {
    let Some(group_by) = &parsed.spec.fit.group_by else { return Ok(()) };
    let axes: Vec<&str> = pretrain.axes.iter().map(|axis| axis.name.as_str()).collect();
    if axes.contains(&group_by.as_str()) {
        return Ok(());
    }
    let hint = match nearest(group_by, axes.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if axes.is_empty() => "the stage has no axes; leave the key out".to_owned(),
        None => format!("the axes are `{}`", axes.join("`, `")),
    };
    Err(parsed.locations.error("fit.group_by", format!("`{group_by}` is no axis; {hint}")))
}

/// Budgets must be far enough apart for their cells to be told apart.
fn check_budgets(parsed: &ParsedSpec, pretrain: &PretrainSpec) -> Result<(), SpecError> {
    let DesignSpec::Isoflop { budgets, .. } = &pretrain.design else { return Ok(()) };
    let Some((index, other)) = close_budget(budgets) else { return Ok(()) };
    let path = format!("{AT}.design.isoflop.budgets[{index}]");
    let problem = format!(
        "the budget {:e} is closer than 5 % to the earlier {other:e}; rounding to whole steps \
         blurs both",
        budgets[index]
    );
    Err(parsed.locations.error(&path, problem))
}

/// The data preparation that every cell needs.
fn prepare(parsed: &ParsedSpec, sources: &[CorpusHashes]) -> Result<PlannedPreparation, SpecError> {
    let (data, locations) = (&parsed.spec.data, &parsed.locations);
    let n_files: usize = sources.iter().map(|corpus| corpus.file_hashes.len()).sum();
    if n_files > MAX_SOURCE_FILES {
        let problem = format!(
            "the corpora have {n_files} files, and a study may have {MAX_SOURCE_FILES}; put \
             several texts into one file"
        );
        return Err(locations.error("data.corpora", problem));
    }
    let mut configs = Vec::new();
    for (index, corpus) in data.corpora.iter().enumerate() {
        let hashes = sources.get(index).filter(|given| given.corpus == corpus.name);
        let Some(hashes) = hashes.filter(|given| !given.file_hashes.is_empty()) else {
            let problem = format!("no file matches; `{}` needs at least one", corpus.name);
            return Err(locations.error(&format!("data.corpora[{index}].files"), problem));
        };
        configs.push(SourceConfig {
            format: corpus.format,
            text_field: corpus.text_field.clone(),
            file_hashes: hashes.file_hashes.iter().map(ToString::to_string).collect(),
        });
    }
    let config = PreparationConfig {
        preparation_version: PREPARATION_VERSION,
        sources: configs,
        tokenizer: data.tokenizer,
        validation_fraction: data.validation_fraction,
        seed: data.seed,
    };
    let identity = config.identity().map_err(|error| locations.error("data", error.to_string()))?;
    Ok(PlannedPreparation { id: PreparationId::from_hash(&identity.hash), identity, config })
}

/// What every cell of a stage has in common.
struct Planner<'a> {
    parsed: &'a ParsedSpec,
    pretrain: &'a PretrainSpec,
    preparation: &'a PlannedPreparation,
    stage: &'a str,
}

/// A cell, or why it is left out.
type CellOrReason = Result<PlannedCell, DroppedCell>;

impl Planner<'_> {
    /// The cells of one combination: one for each entry of the design.
    fn cells(&self, combination: &Combination) -> Result<Vec<(Length, CellOrReason)>, SpecError> {
        let locations = &self.parsed.locations;
        let vocab_size = self.parsed.spec.data.tokenizer.vocab_size();
        let (model, training) = configure(self.pretrain, vocab_size, combination, locations)?;
        let cell = PretrainCell {
            numerics_version: NUMERICS_VERSION,
            model,
            training,
            steps: 0,
            preparation_hash: self.preparation.identity.hash.to_string(),
        };
        let mut cells = Vec::new();
        for length in lengths(&self.pretrain.design, &cell) {
            let name = self.name(combination, &length);
            let planned = match &length.steps {
                Err(reason) => Err(DroppedCell { name, reason: reason.clone() }),
                Ok(steps) => {
                    let cell = PretrainCell { steps: *steps, ..cell.clone() };
                    self.check_schedule(&cell, combination)?;
                    Ok(self.cell(cell, combination, name, &length)?)
                }
            };
            cells.push((length, planned));
        }
        Ok(cells)
    }

    /// The axes' labels and the budget, such as `tnl-s2-1e13`; without either the stage's name.
    fn name(&self, combination: &Combination, length: &Length) -> String {
        let base = if combination.name.is_empty() { self.stage } else { combination.name.as_str() };
        match length.budget {
            Some((_, budget)) => format!("{base}-{budget:e}"),
            None => base.to_owned(),
        }
    }

    /// Where the length is asked for in tokens, a schedule beyond it is a mistake in the file.
    fn check_schedule(&self, cell: &PretrainCell, at: &Combination) -> Result<(), SpecError> {
        let warmup_steps = cell.training.schedule.warmup_steps();
        let problem = if warmup_steps < cell.steps {
            schedule_overlap(&cell.training.schedule, cell.steps)
        } else {
            Some(format!(
                "the warm-up of {warmup_steps} steps is not shorter than the run of {} steps",
                cell.steps
            ))
        };
        let Some(problem) = problem else { return Ok(()) };
        let path = at.path_of("training.schedule");
        Err(self.parsed.locations.error(&path, named(at, &problem)))
    }

    fn cell(
        &self,
        cell: PretrainCell,
        combination: &Combination,
        name: String,
        length: &Length,
    ) -> Result<PlannedCell, SpecError> {
        let micro_batch = self.parsed.spec.runtime.micro_batch_sequences;
        let sequences = cell.training.batch_sequences;
        let memory = cell.memory(micro_batch.unwrap_or(sequences).min(sequences));
        let data_point_steps = data_point_steps(&self.pretrain.checkpoints, cell.steps);
        let config = CellConfig::Pretrain(cell);
        let identity = config.identity().map_err(|error| {
            self.parsed.locations.error(AT, named(combination, &error.to_string()))
        })?;
        Ok(PlannedCell {
            name,
            axis_values: combination.axis_values.clone(),
            run_id: RunId::from_hash(&identity.hash),
            identity,
            config,
            budget_flops: length.budget.map(|(_, budget)| budget),
            data_point_steps,
            memory_bytes: memory.total(),
            trunk: None,
        })
    }

    /// Lets runs go on from each other's checkpoints, where the study says so.
    fn share_trunks(&self, cells: &mut [PlannedCell]) -> Result<(), SpecError> {
        if !self.parsed.spec.runtime.share_trunks {
            return Ok(());
        }
        let trunk = |planned: &PlannedCell| {
            let CellConfig::Pretrain(cell) = &planned.config;
            cell.trunk().map_err(|error| self.parsed.locations.error(AT, error.to_string()))
        };
        let found: Vec<_> = cells.iter().map(trunk).collect::<Result<_, _>>()?;
        trunks::link(cells, &found);
        Ok(())
    }

    /// Each budget must have a cell, or the study cannot answer what it asks.
    fn refuse_unmet_budgets(
        &self,
        met: &BTreeSet<usize>,
        dropped: &[(usize, DroppedCell)],
    ) -> Result<(), SpecError> {
        let DesignSpec::Isoflop { budgets, .. } = &self.pretrain.design else { return Ok(()) };
        for (index, budget) in budgets.iter().enumerate() {
            if met.contains(&index) {
                continue;
            }
            let reasons: Vec<String> = dropped
                .iter()
                .filter(|(budget, _)| *budget == index)
                .take(3)
                .map(|(_, cell)| format!("`{}`: {}", cell.name, cell.reason))
                .collect();
            let problem = format!("no cell meets the budget {budget:e}: {}", reasons.join("; "));
            let path = format!("{AT}.design.isoflop.budgets[{index}]");
            return Err(self.parsed.locations.error(&path, problem));
        }
        Ok(())
    }

    /// A name must say which cell is meant.
    fn refuse_equal_names(&self, cells: &[PlannedCell]) -> Result<(), SpecError> {
        let mut seen = BTreeSet::new();
        for cell in cells {
            if !seen.insert(cell.name.as_str()) {
                let problem = format!(
                    "two cells are called `{}`; names are the axes' labels joined by `-`, and \
                     the budget",
                    cell.name
                );
                return Err(self.parsed.locations.error(&format!("{AT}.axes"), problem));
            }
        }
        Ok(())
    }
}
