//! `gradus fits`: the fits that a store keeps; and `gradus predict` from one of them.

use api::{FitList, FitPredictionList};

use crate::args::{Global, PredictArgs, StudyArgs};
use crate::failure::Failure;
use crate::locate;
use crate::output::Form;

/// As many as the coordinator lists at once.
const MOST_LISTED: usize = 1000;

pub(super) async fn run(global: &Global, args: &StudyArgs) -> Result<(), Failure> {
    let study = args.study.iter().map(|study| ("study", study.clone()));
    let query: Vec<_> = study.chain([("limit", MOST_LISTED.to_string())]).collect();
    let list: FitList = locate::reading(global, async |client| {
        Ok::<_, Failure>(client.get_with(&["fits"], &query).await?)
    })
    .await?;
    let form = Form::of(args.json, global.quiet);
    form.print(&list)?;
    if list.fits.len() >= MOST_LISTED {
        form.hint(&format!("these are the newest {MOST_LISTED}; name a study for its own"));
    }
    Ok(())
}

/// The identifier of a stored fit, where no file of this name is meant.
pub(super) fn stored(args: &PredictArgs) -> Option<&str> {
    let name = args.file.to_str()?;
    let is_identifier = name.parse::<domain::ids::FitId>().is_ok();
    (is_identifier && !args.file.exists()).then_some(name)
}

pub(super) async fn predict(global: &Global, args: &PredictArgs, fit: &str) -> Result<(), Failure> {
    let others = [
        ("--unique", args.unique),
        ("--bits", args.bits),
        ("--bits-activations", args.bits_activations),
        ("--bits-cache", args.bits_cache),
        ("--loss", args.loss),
        ("--rate-sum", args.rate_sum),
        ("--rate-fall", args.rate_fall),
    ];
    if let Some((flag, _)) = others.into_iter().find(|(_, value)| value.is_some()) {
        return Err(Failure::wrong(format!(
            "`{flag}` is for a law that `{fit}` does not have: a study's fit knows N, D and C"
        )));
    }
    if args.then.is_some() {
        return Err(Failure::wrong(format!(
            "`--then` needs a saved fit of the task loss, and `{fit}` is one that the store keeps: \
             `gradus fit … --out FILE` saves one"
        )));
    }
    let numbers = [("c", args.c), ("n", args.n), ("d", args.d)];
    let numbers = numbers.into_iter().filter_map(|(key, value)| Some((key, value?.to_string())));
    let group = args.group.iter().map(|group| ("group", group.clone()));
    let query: Vec<(&str, String)> = numbers.chain(group).collect();
    let list: FitPredictionList = locate::reading(global, async |client| {
        Ok::<_, Failure>(client.get_with(&["fits", fit, "predict"], &query).await?)
    })
    .await?;
    Ok(Form::of(args.json, global.quiet).print(&list)?)
}
