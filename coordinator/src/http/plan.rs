//! An answer that shows a plan, written piece by piece as its reader takes it: a plan may have a
//! million cells, and nothing of it is made twice.
//!
//! What a cell shows is the planner's.

use std::iter::once;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::stream;
use planner::{Plan, cell_view};
use serde::Serialize;

/// Cells in one piece, of some 400 bytes each.
const CELLS_AT_A_TIME: usize = 256;

/// Where the cells of an outline would stand. Inside a text its quotation marks are escaped.
const NO_CELLS: &str = "\"cells\":[]";

/// The answer for an outline (a view with a plan that has no cells), with the plan's cells in it.
pub(super) fn with_cells(outline: &impl Serialize, plan: Arc<Plan>) -> Response {
    let outline = serde_json::to_string(outline).expect("a view is texts and numbers");
    let (before, after) = outline.split_once(NO_CELLS).expect("the outline of a plan has a place");
    let head = Bytes::from(format!("{before}\"cells\":["));
    let tail = Bytes::from(format!("]{after}"));
    let starts = (0..plan.cells.len()).step_by(CELLS_AT_A_TIME);
    let cells = starts.map(move |start| cells_from(&plan, start));
    let pieces = once(head).chain(cells).chain(once(tail)).map(Ok::<_, std::io::Error>);
    let body = Body::from_stream(stream::iter(pieces));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// So many cells, and the comma before them.
fn cells_from(plan: &Plan, start: usize) -> Bytes {
    let mut text = Vec::new();
    for (index, cell) in plan.cells.iter().enumerate().skip(start).take(CELLS_AT_A_TIME) {
        if index > 0 {
            text.push(b',');
        }
        serde_json::to_writer(&mut text, &cell_view(cell)).expect("a view is texts and numbers");
    }
    text.into()
}
