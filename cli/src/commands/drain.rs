//! `gradus drain`: a worker takes nothing more and leaves when what it has is over.

use api::{WorkerList, WorkerView};
use serde_json::json;

use crate::args::{DrainArgs, Global};
use crate::failure::Failure;
use crate::locate;
use crate::output::{Form, note};

pub(super) async fn run(global: &Global, args: &DrainArgs) -> Result<(), Failure> {
    let form = Form::of(args.json, global.quiet);
    let client = locate::for_change(global).await?;
    if args.dry_run {
        let list: WorkerList = client.get(&["workers"]).await?;
        let is_meant = |worker: &WorkerView| worker.id == args.worker || worker.name == args.worker;
        let workers: Vec<WorkerView> =
            list.workers.into_iter().filter(|w| is_meant(w) && is_there(w)).collect();
        if workers.is_empty() {
            return Err(Failure::wrong(format!(
                "there is no worker called `{}`\n\nhint: `gradus workers` lists them",
                args.worker
            )));
        }
        note("dry run: this worker would take nothing more");
        return Ok(form.print(&WorkerList { workers })?);
    }
    let worker: WorkerView = client.post(&["workers", &args.worker, "drain"], &json!({})).await?;
    form.print(&WorkerList { workers: vec![worker] })?;
    form.hint("it leaves when what it has is over; `gradus workers` shows what is left");
    Ok(())
}

fn is_there(worker: &WorkerView) -> bool {
    !matches!(worker.state.as_str(), "gone" | "lost")
}
