//! `gradus logs`: the log of a run, once or until it is over.

use std::time::Duration;

use api::{LogLineView, LogList, RunView};
use domain::run::TERMINAL;

use crate::args::{Global, LogsArgs};
use crate::client::Client;
use crate::failure::Failure;
use crate::locate;
use crate::output::run::log_line;
use crate::output::{Form, data};

/// Lines in one answer.
const PAGE: usize = 1000;

/// How often a followed log is asked for.
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) async fn run(global: &Global, args: &LogsArgs) -> Result<(), Failure> {
    let form = Form::of(args.json, global.quiet);
    locate::reading(global, async |client| {
        if args.follow {
            return follow(client, &args.run, form).await;
        }
        let (mut lines, mut after) = (Vec::new(), 0);
        loop {
            let page = page(client, &args.run, after).await?;
            let is_last = page.len() < PAGE;
            after = page.last().map_or(after, |line| line.id);
            lines.extend(page);
            if is_last {
                form.print(&LogList { lines })?;
                return Ok(());
            }
        }
    })
    .await
}

async fn page(client: &Client, run: &str, after: i64) -> Result<Vec<LogLineView>, Failure> {
    let query = [("after", after.to_string()), ("limit", PAGE.to_string())];
    let list: LogList = client.get_with(&["runs", run, "logs"], &query).await?;
    Ok(list.lines)
}

async fn follow(client: &Client, run: &str, form: Form) -> Result<(), Failure> {
    let mut after = 0;
    loop {
        // Asked before the lines, so that the last lines of a run that just ended are still read.
        let view: RunView = client.get(&["runs", run]).await?;
        let is_over = TERMINAL.contains(&view.summary.state.as_str());
        loop {
            let lines = page(client, run, after).await?;
            let is_last = lines.len() < PAGE;
            after = lines.last().map_or(after, |line| line.id);
            for line in &lines {
                match form {
                    Form::Table => data(&log_line(line)),
                    Form::Quiet => data(&line.text),
                    Form::Json => data(&serde_json::to_string(line).map_err(anyhow::Error::from)?),
                }
            }
            if is_last {
                break;
            }
        }
        if is_over {
            return Ok(());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
