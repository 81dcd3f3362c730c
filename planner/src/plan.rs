//! What a plan is, and how it is made.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use domain::cell::{Identity, IdentityError};
use domain::ids::{ContentHash, PreparationId, RunId};
use domain::recipe::{
    CellConfig, MAX_SOURCE_FILES, NUMERICS_VERSION, PREPARATION_VERSION, PreparationConfig,
    PretrainCell, SourceConfig, schedule_misfit,
};
use domain::spec::{DesignSpec, ParsedSpec, PretrainSpec, RecipeSpec, SpecError};
use domain::suggest::nearest;

use crate::axes::{Combination, combinations};
use crate::cell::{configure, named};
use crate::design::{Length, close_budget, lengths};
use crate::seedless::Seedless;
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
    /// The value of each axis.
    pub axis_values: Combination,
    /// The run of its identity.
    pub run_id: RunId,
    /// Its key: the hash of its canonical text.
    pub identity_hash: ContentHash,
    /// Its seed.
    pub seed: u32,
    /// All else, which its repetitions with other seeds have too.
    pub seedless: Arc<Seedless>,
    /// Where it stands in its trunk, in a study that shares them and under a schedule that has one.
    pub trunk: Option<Box<PlannedTrunk>>,
}

impl PlannedCell {
    /// What it trains.
    pub fn config(&self) -> CellConfig {
        self.seedless.with_seed(self.seed)
    }

    /// The text behind its key. It is made anew: a plan may have a million cells.
    pub fn canonical_json(&self) -> Result<String, IdentityError> {
        self.seedless.canonical_json(self.seed)
    }
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
    let mut planner = Planner {
        parsed,
        pretrain,
        preparation: &preparation,
        stage: &stage.name,
        repeated: HashMap::new(),
    };
    let (mut cells, mut dropped, mut met) = (Vec::new(), Vec::new(), BTreeSet::new());
    for combination in combinations(pretrain, &parsed.locations)? {
        for (budget, cell) in planner.cells(&combination)? {
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
    /// What combinations that differ in their seed share, by the number of the first of them.
    repeated: HashMap<u32, Arc<[Entry]>>,
}

/// One entry of the design for one combination, whatever its seed.
struct Entry {
    /// The position among the budgets and the budget, for isoFLOP designs.
    budget: Option<(usize, f64)>,
    /// The seed of the first combination that is such.
    seed: u32,
    /// The cell but for its seed, or why it is left out.
    seedless: Result<Arc<Seedless>, String>,
}

/// A cell, or why it is left out.
type CellOrReason = Result<PlannedCell, DroppedCell>;

impl Planner<'_> {
    /// The cells of one combination: one for each entry of the design, with its budget's position.
    fn cells(
        &mut self,
        combination: &Combination,
    ) -> Result<Vec<(usize, CellOrReason)>, SpecError> {
        let (entries, seed) = match combination.seed() {
            None => (self.entries(combination, false)?, None),
            Some((first, seed)) => {
                let known = self.repeated.get(&first.number());
                let entries = match known.map(Arc::clone) {
                    Some(entries) => entries,
                    None => self.entries(&first, true)?,
                };
                self.repeated.insert(first.number(), Arc::clone(&entries));
                (entries, Some(seed))
            }
        };
        let cell = |entry: &Entry| {
            let name = self.name(combination, entry.budget);
            let seed = seed.unwrap_or(entry.seed);
            let planned = match &entry.seedless {
                Err(reason) => Err(DroppedCell { name, reason: reason.clone() }),
                Ok(seedless) => Ok(self.cell(seedless, seed, combination, name)?),
            };
            Ok((entry.budget.map_or(0, |(index, _)| index), planned))
        };
        entries.iter().map(cell).collect()
    }

    /// What the cells of a combination are but for their seeds.
    fn entries(&self, at: &Combination, is_repeated: bool) -> Result<Arc<[Entry]>, SpecError> {
        let ParsedSpec { spec, locations } = self.parsed;
        let vocab_size = spec.data.tokenizer.vocab_size();
        let (model, training) = configure(self.pretrain, vocab_size, at, locations)?;
        let cell = PretrainCell {
            numerics_version: NUMERICS_VERSION,
            model,
            training,
            steps: 0,
            preparation_hash: self.preparation.identity.hash.to_string(),
        };
        let entry = |Length { budget, steps }: Length| {
            let seedless = match steps {
                Err(reason) => Err(reason),
                Ok(steps) => {
                    let cell = PretrainCell { steps, ..cell.clone() };
                    self.check_schedule(&cell, at)?;
                    let flops = budget.map(|(_, budget)| budget);
                    let of = (self.pretrain, &spec.runtime);
                    let seedless = Seedless::new(cell, flops, of, is_repeated);
                    Ok(Arc::new(seedless.map_err(|error| self.no_identity(at, &error))?))
                }
            };
            Ok(Entry { budget, seed: cell.training.seed, seedless })
        };
        let lengths = lengths(&self.pretrain.design, &cell).map_err(|problem| {
            locations.error(&format!("{AT}.design.fixed_tokens.tokens"), named(at, &problem))
        })?;
        lengths.into_iter().map(entry).collect()
    }

    fn no_identity(&self, at: &Combination, error: &IdentityError) -> SpecError {
        self.parsed.locations.error(AT, named(at, &error.to_string()))
    }

    /// The axes' labels and the budget, such as `tnl-s2-1e13`; without either the stage's name.
    fn name(&self, combination: &Combination, budget: Option<(usize, f64)>) -> String {
        let mut name = combination.name();
        if name.is_empty() {
            self.stage.clone_into(&mut name);
        }
        match budget {
            Some((_, budget)) => format!("{name}-{budget:e}"),
            None => name,
        }
    }

    /// Where the length is asked for in tokens, a schedule beyond it is a mistake in the file.
    fn check_schedule(&self, cell: &PretrainCell, at: &Combination) -> Result<(), SpecError> {
        let warmup_steps = cell.training.schedule.warmup_steps();
        let problem = if warmup_steps < cell.steps {
            schedule_misfit(&cell.training.schedule, cell.steps)
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
        seedless: &Arc<Seedless>,
        seed: u32,
        combination: &Combination,
        name: String,
    ) -> Result<PlannedCell, SpecError> {
        let canonical_json =
            seedless.canonical_json(seed).map_err(|error| self.no_identity(combination, &error))?;
        let identity_hash = ContentHash::of(canonical_json.as_bytes());
        Ok(PlannedCell {
            name,
            axis_values: combination.clone(),
            run_id: RunId::from_hash(&identity_hash),
            identity_hash,
            seed,
            seedless: Arc::clone(seedless),
            trunk: None,
        })
    }

    /// Lets runs go on from each other's checkpoints, where the study says so.
    fn share_trunks(&self, cells: &mut [PlannedCell]) -> Result<(), SpecError> {
        if !self.parsed.spec.runtime.share_trunks {
            return Ok(());
        }
        let trunk = |planned: &PlannedCell| {
            let CellConfig::Pretrain(cell) = planned.config();
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
        let mut seen = HashSet::new();
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
