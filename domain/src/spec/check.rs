//! What can be said of a study file without planning it: names, ranges, counts.
//!
//! Shapes, budgets and axes are the planner's.

use super::SPEC_VERSION;
use super::retries::RetriesSpec;
use super::study::{
    CheckpointSpec, DataSpec, DesignSpec, LARGEST_VOCABULARY, PretrainSpec, RecipeSpec,
    SMALLEST_VOCABULARY, StudySpec,
};
use super::training::{ScheduleSpec, StabilitySpec, TrainingSpec, WeightAverageSpec};

/// The most data points of a cell: each is a checkpoint that is kept, and a row of the plan.
const MOST_DATA_POINTS: u32 = 10_000;

/// The least `eps`: float32, in which the optimizer works, has nothing between zero and 1e-45, and
/// only a few digits below this.
const LEAST_EPS: f64 = 1e-38;

/// A check's complaint: the key's path and the problem.
pub(super) type Complaint = (String, String);

fn complain<T>(path: impl Into<String>, problem: impl Into<String>) -> Result<T, Complaint> {
    Err((path.into(), problem.into()))
}

pub(super) fn require(
    ok: bool,
    path: &str,
    problem: impl FnOnce() -> String,
) -> Result<(), Complaint> {
    if ok { Ok(()) } else { complain(path, problem()) }
}

/// Whether a text can be the name of something in a study file.
pub fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= 64 && text.bytes().all(allowed) && !text.starts_with('.')
}

/// The range of a share, of a study or a user. Beyond it a share is nothing or everything, and the turns would
/// leave the numbers that a sum can tell apart.
pub const LIGHTEST: f64 = 0.001;
/// The other end of the range.
pub const HEAVIEST: f64 = 1000.0;

impl StudySpec {
    /// Checks what can be said without planning: names, ranges, counts.
    pub(super) fn check(&self) -> Result<(), Complaint> {
        debug_assert_eq!(self.version, SPEC_VERSION);
        check_name("name", &self.name)?;
        self.data.check()?;
        require(self.stages.len() == 1, "stages", || {
            format!("version 1 has exactly one stage, this file has {}", self.stages.len())
        })?;
        check_name("stages[0].name", &self.stages[0].name)?;
        let RecipeSpec::Pretrain(pretrain) = &self.stages[0].recipe;
        pretrain.check("stages[0].recipe.pretrain")?;
        if let Err(error) = self.fit.check() {
            let problem = format!("`{}`: {}", error.value, error.valid);
            return complain(format!("fit.{}", error.field), problem);
        }
        require(
            self.runtime.micro_batch_sequences != Some(0),
            "runtime.micro_batch_sequences",
            || "`0` is too few; at least 1, or leave the key out".into(),
        )?;
        require(
            self.runtime.rolling_checkpoint_seconds > 0,
            "runtime.rolling_checkpoint_seconds",
            || "`0` is too few; at least 1".into(),
        )?;
        let weight = self.runtime.weight;
        let is_weight = (LIGHTEST..=HEAVIEST).contains(&weight);
        require(is_weight, "runtime.weight", || {
            format!("`{weight}` is out of range; {LIGHTEST} to {HEAVIEST}")
        })?;
        let budget = self.runtime.budget_flops.unwrap_or(1.0);
        require(budget > 0.0 && budget.is_finite(), "runtime.budget_flops", || {
            format!("`{budget}` is out of range; above 0")
        })?;
        self.runtime.placement.check()?;
        for (index, rule) in self.runtime.log_rules.iter().enumerate() {
            rule.check(&format!("runtime.log_rules[{index}]"))?;
        }
        require(self.runtime.max_failures > 0, "runtime.max_failures", || {
            "`0` is too few; at least 1, which tries nothing again".into()
        })?;
        self.runtime.retries.check()
    }
}

impl RetriesSpec {
    fn check(&self) -> Result<(), Complaint> {
        let rules = [
            ("out_of_memory", self.out_of_memory),
            ("bad_data", self.bad_data),
            ("bad_checkpoint", self.bad_checkpoint),
            ("bug", self.bug),
            ("worker_lost", self.worker_lost),
        ];
        for (class, rule) in rules {
            let Some(rule) = rule else { continue };
            let path = format!("runtime.retries.{class}");
            require(rule.attempts > 0, &format!("{path}.attempts"), || {
                "`0` is too few; at least 1, which tries nothing again".into()
            })?;
            let (pause, longest) = (rule.pause_seconds, rule.longest_pause_seconds);
            require(pause <= longest, &format!("{path}.pause_seconds"), || {
                format!("`{pause}` is longer than `longest_pause_seconds`, which is `{longest}`")
            })?;
        }
        Ok(())
    }
}

fn check_name(path: &str, name: &str) -> Result<(), Complaint> {
    require(is_name(name), path, || {
        format!("`{name}` is not a name: 1 to 64 letters, digits, `-`, `_` or `.`")
    })
}

impl DataSpec {
    fn check(&self) -> Result<(), Complaint> {
        require(!self.corpora.is_empty(), "data.corpora", || {
            "the list is empty; at least one corpus is needed".into()
        })?;
        for (index, corpus) in self.corpora.iter().enumerate() {
            let path = format!("data.corpora[{index}].name");
            check_name(&path, &corpus.name)?;
            let is_new = self.corpora[..index].iter().all(|other| other.name != corpus.name);
            require(is_new, &path, || {
                format!("`{}` is the name of an earlier corpus; names are unique", corpus.name)
            })?;
            require(!corpus.files.is_empty(), &format!("data.corpora[{index}].files"), || {
                "the list is empty; at least one file is needed".into()
            })?;
        }
        let share = self.validation_fraction;
        require(share > 0.0 && share < 1.0, "data.validation_fraction", || {
            format!("`{share}` is out of range; above 0 and below 1")
        })?;
        let vocab = self.tokenizer.vocab_size();
        let is_fitting = (SMALLEST_VOCABULARY..=LARGEST_VOCABULARY).contains(&vocab);
        require(is_fitting, "data.tokenizer.bpe.vocab_size", || {
            format!("`{vocab}` is out of range; {SMALLEST_VOCABULARY} to {LARGEST_VOCABULARY}")
        })
    }
}

impl PretrainSpec {
    fn check(&self, at: &str) -> Result<(), Complaint> {
        self.training.check(&format!("{at}.training"))?;
        for (index, axis) in self.axes.iter().enumerate() {
            check_name(&format!("{at}.axes[{index}].name"), &axis.name)?;
            require(!axis.values.is_empty(), &format!("{at}.axes[{index}].values"), || {
                "the list is empty, so the study would have no cell".into()
            })?;
            let is_new = self.axes[..index].iter().all(|other| other.name != axis.name);
            require(is_new, &format!("{at}.axes[{index}].name"), || {
                format!("`{}` is the name of an earlier axis; names are unique", axis.name)
            })?;
        }
        self.design.check(&format!("{at}.design"))?;
        if let CheckpointSpec::LogSpaced { count, .. } = self.checkpoints {
            let is_count = (1..=MOST_DATA_POINTS).contains(&count);
            require(is_count, &format!("{at}.checkpoints.log_spaced.count"), || {
                format!("`{count}` is out of range; 1 to {MOST_DATA_POINTS}")
            })?;
        }
        for (index, evaluate) in self.evaluate.iter().enumerate() {
            require(
                evaluate.sequences != Some(0),
                &format!("{at}.evaluate[{index}].sequences"),
                || "`0` is too few; at least 1, or leave the key out".into(),
            )?;
            // Fits take one loss for each checkpoint, so a study has one measurement of a task.
            let is_new = self.evaluate[..index].iter().all(|other| other.task != evaluate.task);
            require(is_new, &format!("{at}.evaluate[{index}].task"), || {
                let task = evaluate.task.label();
                format!("`{task}` is measured by an earlier entry; each task may stand here once")
            })?;
        }
        Ok(())
    }
}

impl TrainingSpec {
    /// Checks the ranges; `at` is the path of this part in the study file.
    pub fn check(&self, at: &str) -> Result<(), (String, String)> {
        let positive = |key: &str, value: u32| {
            require(value > 0, &format!("{at}.{key}"), || "`0` is too few; at least 1".into())
        };
        positive("sequence_length", self.sequence_length)?;
        positive("batch_sequences", self.batch_sequences)?;
        let optimizer = &self.optimizer;
        // What is left out gets a rate that is in range.
        let rate = optimizer.learning_rate.unwrap_or(1.0);
        for (key, value, valid, is_valid) in [
            ("learning_rate", rate, "above 0", rate > 0.0),
            ("beta1", optimizer.beta1, "0 to below 1", (0.0..1.0).contains(&optimizer.beta1)),
            ("beta2", optimizer.beta2, "0 to below 1", (0.0..1.0).contains(&optimizer.beta2)),
            ("eps", optimizer.eps, "1e-38 or above, as float32 has it", optimizer.eps >= LEAST_EPS),
            ("weight_decay", optimizer.weight_decay, "0 or above", optimizer.weight_decay >= 0.0),
            ("gradient_clip", optimizer.gradient_clip, "above 0", optimizer.gradient_clip > 0.0),
        ] {
            require(is_valid && value.is_finite(), &format!("{at}.optimizer.{key}"), || {
                format!("`{value}` is out of range; {valid}")
            })?;
        }
        require(self.z_loss >= 0.0 && self.z_loss.is_finite(), &format!("{at}.z_loss"), || {
            format!("`{}` is out of range; at least 0, usually 1e-4", self.z_loss)
        })?;
        self.stability.check(&format!("{at}.stability"))?;
        if let Some(WeightAverageSpec::Ema { decay }) = self.weight_average {
            let path = format!("{at}.weight_average.ema.decay");
            require(decay > 0.0 && decay < 1.0, &path, || {
                format!("`{decay}` is out of range; above 0 and below 1")
            })?;
        }
        match self.schedule {
            ScheduleSpec::Constant { .. } => Ok(()),
            ScheduleSpec::Cosine { final_share, .. } => require(
                (0.0..=1.0).contains(&final_share),
                &format!("{at}.schedule.cosine.final_share"),
                || format!("`{final_share}` is out of range; 0 to 1"),
            ),
            ScheduleSpec::Wsd { decay_share, .. } => require(
                decay_share > 0.0 && decay_share <= 1.0,
                &format!("{at}.schedule.wsd.decay_share"),
                || format!("`{decay_share}` is out of range; above 0 and up to 1"),
            ),
        }
    }
}

impl StabilitySpec {
    fn check(&self, at: &str) -> Result<(), Complaint> {
        let Some(spike) = self.loss_spike else { return Ok(()) };
        let is_positive = spike.above_nats > 0.0 && spike.above_nats.is_finite();
        require(is_positive, &format!("{at}.loss_spike.above_nats"), || {
            format!("`{}` is out of range; above 0", spike.above_nats)
        })?;
        require(spike.window_steps > 0, &format!("{at}.loss_spike.window_steps"), || {
            "`0` is too few; at least 1".into()
        })
    }
}

impl DesignSpec {
    fn check(&self, at: &str) -> Result<(), Complaint> {
        match self {
            Self::FixedTokens { tokens } => {
                require(*tokens > 0, &format!("{at}.fixed_tokens.tokens"), || {
                    "`0` is too few; at least 1".into()
                })
            }
            Self::Isoflop { budgets, min_tokens_per_parameter, max_tokens_per_parameter } => {
                require(!budgets.is_empty(), &format!("{at}.isoflop.budgets"), || {
                    "the list is empty; at least one budget is needed".into()
                })?;
                for (index, budget) in budgets.iter().enumerate() {
                    let path = format!("{at}.isoflop.budgets[{index}]");
                    require(*budget > 0.0 && budget.is_finite(), &path, || {
                        format!("`{budget}` is out of range; above 0")
                    })?;
                }
                let (least, most) = (*min_tokens_per_parameter, *max_tokens_per_parameter);
                require(least >= 0.0 && least < most, &format!("{at}.isoflop"), || {
                    format!(
                        "`min_tokens_per_parameter` {least} must be below `max_tokens_per_parameter` {most}"
                    )
                })
            }
        }
    }
}
