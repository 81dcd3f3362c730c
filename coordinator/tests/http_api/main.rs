//! The HTTP API over a real store: what it answers, whom it refuses, and what its stream says.

#![expect(clippy::unwrap_used, reason = "a broken assumption of a test is its failure")]

mod apply;
mod curves;
mod dispatch;
mod document;
mod events;
mod fits;
mod guard;
mod support;
mod verbs;
mod views;
mod web;
