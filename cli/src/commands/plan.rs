//! `gradus plan`: what a study file asks for, without a coordinator.

use planner::plan_view;

use crate::args::{Global, PlanArgs};
use crate::failure::Failure;
use crate::output::Form;
use crate::sources::read_study;

pub(super) fn run(global: &Global, args: &PlanArgs) -> Result<(), Failure> {
    let study = read_study(&args.file)?;
    let form = Form::of(args.json, global.quiet);
    form.print(&plan_view(&study.plan))?;
    form.hint(&format!("`gradus apply {}` hands it to a coordinator", args.file.display()));
    Ok(())
}
