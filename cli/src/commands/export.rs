//! `gradus export`: every point of every series of a study or a run.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use api::{PointRecord, RunSummary, RunView};

use super::target::Target;
use crate::args::{ExportArgs, ExportFormat, Global};
use crate::client::Client;
use crate::failure::Failure;
use crate::locate;
use crate::output::Form;

/// What is exported, and where it goes.
struct Sink {
    format: ExportFormat,
    to: Box<dyn Write + Send>,
    n_points: u64,
}

pub(super) async fn run(global: &Global, args: &ExportArgs) -> Result<(), Failure> {
    locate::reading(global, async |client| {
        let runs = Target::find(client, &args.target).await?.runs(client).await?;
        if let Some(name) = &args.series {
            refuse_unknown(client, name, &runs).await?;
        }
        let Some(out) = &args.out else {
            let to = Box::new(BufWriter::new(std::io::stdout()));
            export(client, &runs, args, to).await?;
            return Ok(());
        };
        // It appears whole or not at all.
        let folder = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::NamedTempFile::new_in(folder)
            .with_context(|| format!("could not make a file in `{}`", folder.display()))?;
        let to = file.reopen().context("could not open a temporary file")?;
        let n = export(client, &runs, args, Box::new(BufWriter::new(to))).await?;
        keep(file, out)?;
        let form = Form::of(false, global.quiet);
        form.hint(&format!("{n} points of {} runs are in `{}`", runs.len(), out.display()));
        Ok(())
    })
    .await
}

/// An error where none of the runs has a series of this name, which would be a file without points.
async fn refuse_unknown(client: &Client, name: &str, runs: &[RunSummary]) -> Result<(), Failure> {
    let mut known = BTreeSet::new();
    for run in runs {
        let view: RunView = client.get(&["runs", &run.id]).await?;
        if view.series.iter().any(|one| one == name) {
            return Ok(());
        }
        known.extend(view.series);
    }
    let known: Vec<String> = known.into_iter().map(|one| format!("`{one}`")).collect();
    let valid = if known.is_empty() {
        "none of them has points yet".to_owned()
    } else {
        format!("valid: {}", known.join(", "))
    };
    let (n, s) = (runs.len(), if runs.len() == 1 { "" } else { "s" });
    Err(Failure::wrong(format!("`--series {name}`: no series of the {n} run{s}; {valid}")))
}

fn keep(file: tempfile::NamedTempFile, out: &Path) -> anyhow::Result<()> {
    let kept: File =
        file.persist(out).with_context(|| format!("could not write `{}`", out.display()))?;
    kept.sync_all().with_context(|| format!("could not write `{}`", out.display()))
}

async fn export(
    client: &Client,
    runs: &[RunSummary],
    args: &ExportArgs,
    to: Box<dyn Write + Send>,
) -> Result<u64, Failure> {
    let mut sink = Sink { format: args.format, to, n_points: 0 };
    sink.begin()?;
    for run in runs {
        let query: Vec<(&str, String)> =
            args.series.iter().map(|series| ("series", series.clone())).collect();
        let mut points = client.lines(&["runs", &run.id, "points"], &query).await?;
        while let Some(line) = points.next_line().await? {
            sink.take(&line, args.current)?;
        }
    }
    sink.to.flush().context("could not write all points")?;
    Ok(sink.n_points)
}

impl Sink {
    fn begin(&mut self) -> anyhow::Result<()> {
        match self.format {
            ExportFormat::Csv => writeln!(self.to, "run,series,attempt,step,value,is_current")
                .context("could not write all points"),
            ExportFormat::Jsonl => Ok(()),
        }
    }

    fn take(&mut self, line: &str, is_current_only: bool) -> anyhow::Result<()> {
        let point: PointRecord = serde_json::from_str(line)
            .with_context(|| format!("the coordinator sent `{line}`, which is no point"))?;
        if is_current_only && !point.is_current {
            return Ok(());
        }
        self.n_points += 1;
        let written = match self.format {
            ExportFormat::Jsonl => writeln!(self.to, "{line}"),
            ExportFormat::Csv => writeln!(self.to, "{}", csv_line(&point)),
        };
        written.context("could not write all points")
    }
}

/// Names of runs and series hold neither commas nor quotes. A number is written with as many digits as
/// it takes to read the same one back; one that was not finite is empty.
fn csv_line(point: &PointRecord) -> String {
    let value = point.value.map(|value| format!("{value:?}")).unwrap_or_default();
    format!(
        "{},{},{},{},{value},{}",
        point.run, point.series, point.attempt, point.step, point.is_current
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_back_as_it_was() {
        let mut point = PointRecord {
            run: "r_1".into(),
            series: "train_loss_nats".into(),
            attempt: 2,
            step: 7,
            value: Some(0.1 + 0.2),
            is_current: true,
        };
        assert_eq!(csv_line(&point), "r_1,train_loss_nats,2,7,0.30000000000000004,true");
        point.value = None;
        assert_eq!(csv_line(&point), "r_1,train_loss_nats,2,7,,true");
        for value in [1e300, 5e-324, -0.0, 1.0 / 3.0] {
            point.value = Some(value);
            let line = csv_line(&point);
            let read: f64 = line.split(',').nth(4).unwrap().parse().unwrap();
            assert_eq!(read.to_bits(), value.to_bits(), "{line}");
        }
    }
}
