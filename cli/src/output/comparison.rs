//! Two groups beside each other, for people.
//!
//! It compares nothing, and it ranks nobody: an interval that holds zero says that the data do not tell.

use api::{BudgetView, ComparisonView, EstimateView};

use super::fit_parts::{Footnotes, number, warnings};
use super::table;

/// Why there is no probability.
const NO_DRAWS: &str = "a share of bootstrap draws, which so few runs do not have";
/// Names that are longer together leave no room for numbers in a line of 80 letters.
const MOST_NAMED: usize = 26;

/// A comparison as text.
pub(super) fn shown(view: &ComparisonView) -> String {
    let names = &view.names;
    let is_long = names.iter().map(|name| name.chars().count()).sum::<usize>() > MOST_NAMED;
    let [first, second] = if is_long {
        ["the first", "the second"].map(str::to_owned)
    } else {
        [&names[0], &names[1]].map(|name| format!("`{name}`"))
    };
    let mut notes = Footnotes::default();
    let mut parts = vec![format!(
        "`{}` against `{}`, {}{:.0} % intervals{}",
        names[0],
        names[1],
        if view.is_at_best_sizes { "each at its own best N and D, " } else { "" },
        100.0 * view.level,
        if view.is_paired { ", drawn together" } else { "" }
    )];
    for one in &view.budgets {
        let mut rows = Vec::new();
        let mut push = |name: String, estimate: &EstimateView, shown: fn(f64) -> String| {
            let (value, interval) = match estimate {
                EstimateView::Identified { value, low, high } => {
                    (shown(*value), format!("[{}, {}]", shown(*low), shown(*high)))
                }
                EstimateView::NotIdentified { reason } => {
                    ("not identified".to_owned(), notes.mark(reason))
                }
            };
            rows.push(vec![name, value, interval]);
        };
        let fine: fn(f64) -> String = |value| format!("{value:.4}");
        let signed: fn(f64) -> String = |value| format!("{value:+.4}");
        push(format!("loss of {first} - {second}, nats"), &one.loss_difference_nats, signed);
        push("ratio of the losses".to_owned(), &one.loss_ratio, fine);
        push(format!("compute of {second} for equal loss"), &one.flops_ratio, number);
        let [share, why] = match (one.first_is_better, &one.loss_difference_nats) {
            (Some(share), _) => [format!("{share:.3}"), String::new()],
            (None, EstimateView::NotIdentified { reason }) => {
                ["not identified".to_owned(), notes.mark(reason)]
            }
            (None, EstimateView::Identified { .. }) => ["–".to_owned(), notes.mark(NO_DRAWS)],
        };
        rows.push(vec![format!("probability that {first} is better"), share, why]);
        let heading = format!("AT C = {}", number(one.flops));
        parts.push(table(&[heading.as_str(), ">VALUE", "INTERVAL"], rows));
    }
    parts.push(match &view.crossover_flops {
        EstimateView::Identified { value, low, high } => {
            let ends = format!("[{}, {}]", number(*low), number(*high));
            format!("equal loss at C = {} {ends}", number(*value))
        }
        EstimateView::NotIdentified { reason } => format!("equal loss: not identified: {reason}"),
    });
    if !view.other_crossovers_flops.is_empty() {
        let others: Vec<String> =
            view.other_crossovers_flops.iter().map(|flops| number(*flops)).collect();
        parts.push(format!("equal loss too at C = {}", others.join(", ")));
    }
    let notes = notes.text();
    if !notes.is_empty() {
        parts.push(notes);
    }
    if !view.warnings.is_empty() {
        parts.push(warnings(&view.warnings));
    }
    parts.join("\n")
}

/// Every two groups of a study, a line each: method by method, budget by budget.
pub(super) fn table_of(comparisons: &[ComparisonView], notes: &mut Footnotes) -> String {
    let mut parts = Vec::new();
    let budgets = |one: &ComparisonView| -> Vec<(String, f64)> {
        one.budgets.iter().map(|at| (one.method.clone(), at.flops)).collect()
    };
    let mut places: Vec<(String, f64)> = Vec::new();
    for place in comparisons.iter().flat_map(budgets) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    for (method, flops) in places {
        let of_method = comparisons.iter().filter(|one| one.method == method);
        let at = of_method.flat_map(|one| {
            let here = one.budgets.iter().filter(|at| at.flops == flops);
            here.map(move |at| (one, at))
        });
        let rows = at.map(|(one, at)| row(one, at, notes)).collect();
        let heading = format!("two groups by {method} at C = {}", number(flops));
        let columns = ["FIRST - SECOND", "LOSS DIFFERENCE, NATS", "COMPUTE OF SECOND", ">P"];
        parts.push(format!("{heading}\n{}", table(&columns, rows)));
    }
    if !parts.is_empty() {
        parts.push(
            "compute of the second for the loss of the first, over C; P: the first is better"
                .to_owned(),
        );
    }
    let is_one_method = comparisons.iter().all(|one| one.method == comparisons[0].method);
    for one in comparisons {
        if let EstimateView::Identified { value, low, high } = &one.crossover_flops {
            let [value, low, high] = [value, low, high].map(|end| number(*end));
            let how = if one.crossover_is_inside_both { "" } else { ", extrapolated," };
            let by = if is_one_method { String::new() } else { format!(" ({})", one.method) };
            let [first, second] = &one.names;
            parts.push(format!(
                "equal loss{how} at C = {value} [{low}, {high}]: {first} and {second}{by}"
            ));
        }
    }
    let said = comparisons.iter().flat_map(|one| {
        let [first, second] = &one.names;
        one.warnings.iter().map(move |text| format!("{first} - {second}, {}: {text}", one.method))
    });
    let said: Vec<String> = said.collect();
    if !said.is_empty() {
        parts.push(warnings(&said));
    }
    parts.join("\n")
}

fn row(one: &ComparisonView, at: &BudgetView, notes: &mut Footnotes) -> Vec<String> {
    let mut shown = |estimate: &EstimateView, form: fn(f64) -> String| match estimate {
        EstimateView::Identified { value, low, high } => {
            format!("{} [{}, {}]", form(*value), form(*low), form(*high))
        }
        EstimateView::NotIdentified { reason } => format!("not identified {}", notes.mark(reason)),
    };
    let difference = shown(&at.loss_difference_nats, |value| format!("{value:+.4}"));
    let compute = shown(&at.flops_ratio, number);
    let share = match (at.first_is_better, &at.loss_difference_nats) {
        (Some(share), _) => format!("{share:.2}"),
        (None, EstimateView::Identified { .. }) => format!("– {}", notes.mark(NO_DRAWS)),
        (None, EstimateView::NotIdentified { .. }) => "–".to_owned(),
    };
    vec![format!("{} - {}", one.names[0], one.names[1]), difference, compute, share]
}
