//! The progress of a study: bars on a terminal, plain lines elsewhere.
//!
//! It only looks; what it shows is what the coordinator says.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use api::{AssignmentView, RunList, RunSummary, StudyView};
use domain::run::TERMINAL;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::client::{Client, ClientError};
use crate::failure::Failure;
use crate::output::study::{counts, progress, share};
use crate::output::worker::assignment;
use crate::output::{format, note};

/// How often the coordinator is asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often a plain line is written while nothing ends.
const LINE_INTERVAL: Duration = Duration::from_secs(15);

/// A coordinator that restarts is back within this.
const PATIENCE: Duration = Duration::from_mins(1);

/// The bar counts in parts of the whole, since FLOPs do not fit into 64 bits.
const PARTS: u64 = 10_000;

/// Follows a study until it is no longer active and returns how it stands then.
pub(crate) async fn follow(
    client: &Client,
    study: &str,
    is_quiet: bool,
) -> Result<StudyView, Failure> {
    let mut display = Display::new(is_quiet);
    let mut last_answer = Instant::now();
    loop {
        match look(client, study).await {
            Ok((view, runs)) => {
                last_answer = Instant::now();
                display.show(&view, &runs.runs);
                if !matches!(view.summary.state.as_str(), "active" | "paused") {
                    display.finish();
                    return Ok(view);
                }
            }
            Err(ClientError::Unreachable { .. }) if last_answer.elapsed() < PATIENCE => {}
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn look(client: &Client, study: &str) -> Result<(StudyView, RunList), ClientError> {
    let view = client.get(&["studies", study]).await?;
    let runs = client.get(&["studies", study, "runs"]).await?;
    Ok((view, runs))
}

/// How a study that is over ended, as an exit status.
pub(crate) fn verdict(view: &StudyView) -> Result<(), Failure> {
    let summary = &view.summary;
    let name = &summary.name;
    match summary.state.as_str() {
        "failed" => Err(Failure::failed(format!(
            "study `{name}` has failed: runs {}; evaluations {}\n\nhint: `gradus runs {name}` says \
             why, `gradus retry {name}` queues them again",
            counts(&summary.runs),
            counts(&summary.evaluations),
        ))),
        "cancelled" => Err(Failure::failed(format!("study `{name}` was cancelled"))),
        _ => {
            let n_diverged = summary.runs.get("diverged").copied().unwrap_or(0);
            if n_diverged > 0 {
                note(&format!("warning: {n_diverged} runs diverged; fits leave them out"));
            }
            Ok(())
        }
    }
}

struct Display {
    bars: Option<Bars>,
    is_quiet: bool,
    states: BTreeMap<String, String>,
    is_first: bool,
    last_line: Option<Instant>,
}

impl Display {
    fn new(is_quiet: bool) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bars = (is_terminal && !is_quiet).then(Bars::new);
        Self { bars, is_quiet, states: BTreeMap::new(), is_first: true, last_line: None }
    }

    fn show(&mut self, view: &StudyView, runs: &[RunSummary]) {
        if self.is_quiet {
            return;
        }
        let ended = self.newly_ended(runs);
        for run in &ended {
            self.say(&end_line(run));
        }
        if let Some(bars) = &mut self.bars {
            bars.show(view);
        } else if self.last_line.is_none_or(|last| last.elapsed() >= LINE_INTERVAL) {
            self.last_line = Some(Instant::now());
            note(&plain_line(view));
        }
    }

    /// The runs that ended since the last look; at the first look none, for that is no news.
    fn newly_ended<'a>(&mut self, runs: &'a [RunSummary]) -> Vec<&'a RunSummary> {
        let mut ended = Vec::new();
        for run in runs {
            let before = self.states.insert(run.id.clone(), run.state.clone());
            let is_new = before.as_ref() != Some(&run.state) && !self.is_first;
            if is_new && TERMINAL.contains(&run.state.as_str()) {
                ended.push(run);
            }
        }
        self.is_first = false;
        ended
    }

    fn say(&self, line: &str) {
        match &self.bars {
            // A failure to draw is no failure of the study.
            Some(bars) => drop(bars.all.println(line)),
            None => note(line),
        }
    }

    fn finish(&self) {
        if let Some(bars) = &self.bars {
            // As above.
            drop(bars.all.clear());
        }
    }
}

/// A run's end in a line.
fn end_line(run: &RunSummary) -> String {
    let mut parts = vec![format!("{} {} at step {}/{}", run.name, run.state, run.step, run.steps)];
    if let Some(loss) = run.train_loss_nats {
        parts.push(format!("training loss {loss:.4}"));
    }
    if !run.message.is_empty() && run.state != "succeeded" {
        parts.push(run.message.lines().next().unwrap_or_default().to_owned());
    }
    parts.join(", ")
}

/// The whole study in a line.
fn plain_line(view: &StudyView) -> String {
    let doing: Vec<String> =
        view.workers.iter().flat_map(|worker| &worker.assignments).map(assignment).collect();
    let runs = counts(&view.summary.runs);
    let mut parts = vec![progress(&view.summary), format!("runs: {runs}")];
    if !doing.is_empty() {
        parts.push(format!("now: {}", doing.join(", ")));
    }
    parts.join("; ")
}

/// A bar for the study and a line for each slot.
struct Bars {
    all: MultiProgress,
    study: ProgressBar,
    slots: Vec<ProgressBar>,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::new();
        let study = all.add(ProgressBar::new(PARTS));
        study.set_style(style("{prefix} [{bar:24}] {msg}"));
        Self { all, study, slots: Vec::new() }
    }

    fn show(&mut self, view: &StudyView) {
        let summary = &view.summary;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a small number; casts saturate"
        )]
        let position = (share(summary) * PARTS as f64) as u64;
        self.study.set_prefix(summary.name.clone());
        self.study.set_position(position.min(PARTS));
        let evaluations = summary.evaluations.get("succeeded").copied().unwrap_or(0);
        let all: u64 = summary.evaluations.values().sum();
        let mut message = vec![format!(
            "{} of {} FLOPs, {}",
            format::percent(share(summary)),
            format::flops(summary.flops_total),
            format::optional(summary.eta_seconds, |eta| format!("{} left", format::duration(eta)))
        )];
        if all > 0 {
            message.push(format!("{evaluations}/{all} evaluated"));
        }
        self.study.set_message(message.join(", "));
        let lines: Vec<String> = view
            .workers
            .iter()
            .filter(|worker| matches!(worker.state.as_str(), "active" | "draining"))
            .flat_map(|worker| slot_lines(&worker.name, worker.n_slots, &worker.assignments))
            .collect();
        while self.slots.len() < lines.len() {
            let slot = self.all.add(ProgressBar::new(1));
            slot.set_style(style("  {wide_msg}"));
            self.slots.push(slot);
        }
        for slot in self.slots.drain(lines.len()..) {
            self.all.remove(&slot);
        }
        for (slot, line) in self.slots.iter().zip(lines) {
            slot.set_message(line);
        }
    }
}

fn slot_lines(worker: &str, n_slots: u32, assignments: &[AssignmentView]) -> Vec<String> {
    let busy = assignments.iter().map(|one| format!("{worker}  {}", assignment(one)));
    let n_idle = (n_slots as usize).saturating_sub(assignments.len());
    busy.chain(std::iter::repeat_n(format!("{worker}  idle"), n_idle)).collect()
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("█▌░")
}
