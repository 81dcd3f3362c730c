//! From the wire to the store's arguments. Fallible; the missing or bad field is named.
//!
//! What `proto::from_wire` knows already is asked there.

use std::collections::{BTreeMap, HashMap};

use domain::ids::{LeaseToken, WorkerId};
use domain::spec::is_name;
use proto::from_wire::{DecodeError, content_hash, lease_token, required};
use proto::v1;

use crate::scheduler::fit::Machine;
use crate::store::{Artifact, Capabilities, LogLevel, Numerics, ReportEvent, WorkerToRegister};

/// The longest log line that is kept, in bytes: a panic's text fits, a dump does not.
const MAX_LOG_BYTES: usize = 16 * 1024;

pub(super) fn registration(
    request: v1::RegisterRequest,
    proposed_id: WorkerId,
    connected: Vec<WorkerId>,
) -> Result<WorkerToRegister, DecodeError> {
    let found = required(request.capabilities, "capabilities")?;
    Ok(WorkerToRegister {
        proposed_id,
        name: request.name,
        hostname: request.hostname,
        pid: request.pid,
        instance: request.instance,
        connected,
        machine: Machine {
            n_slots: request.n_slots,
            capabilities: Capabilities {
                device_kind: found.device_kind,
                device_name: found.device_name,
                threads_per_slot: found.threads_per_slot,
                cpu_capability: found.cpu_capability,
                libtorch_version: found.libtorch_version,
                memory_bytes: found.memory_bytes,
                recipes: found.recipes,
                labels: labels(found.labels)?,
            },
        },
    })
}

/// Labels that no study could ask for are refused.
fn labels(found: HashMap<String, String>) -> Result<BTreeMap<String, String>, DecodeError> {
    match found.iter().find(|(key, value)| !is_name(key) || !is_name(value)) {
        Some((key, value)) => {
            let label = format!("{key}={value}");
            Err(DecodeError::Label { field: "capabilities.labels", label })
        }
        None => Ok(found.into_iter().collect()),
    }
}

pub(super) fn lease_tokens(tokens: &[u64]) -> Result<Vec<LeaseToken>, DecodeError> {
    tokens.iter().map(|token| lease_token(*token)).collect()
}

pub(super) fn events(events: Vec<v1::Event>) -> Result<Vec<ReportEvent>, DecodeError> {
    events.into_iter().map(|event| self::event(required(event.kind, "events.kind")?)).collect()
}

fn event(kind: v1::event::Kind) -> Result<ReportEvent, DecodeError> {
    use v1::event::Kind;
    Ok(match kind {
        Kind::Point(point) => ReportEvent::Point {
            step: point.step,
            values: point.values.into_iter().collect::<BTreeMap<_, _>>(),
        },
        Kind::Log(line) => log_line(line)?,
        Kind::Checkpoint(checkpoint) => ReportEvent::Checkpoint {
            step: checkpoint.step,
            manifest: artifact(checkpoint.manifest, "checkpoint.manifest")?,
            weights: artifact(checkpoint.weights, "checkpoint.weights")?,
            is_data_point: checkpoint.is_data_point,
            n_bytes: checkpoint.n_bytes,
        },
        Kind::Evaluation(result) => ReportEvent::Evaluation {
            name: result.name,
            value: result.value,
            standard_error: result.standard_error,
            n_tokens: result.n_tokens,
        },
        Kind::Preparation(result) => ReportEvent::Preparation {
            manifest: artifact(result.manifest, "preparation.manifest")?,
            n_training_tokens: result.n_training_tokens,
            n_validation_tokens: result.n_validation_tokens,
            vocab_size: result.vocab_size,
        },
        Kind::Started(started) => ReportEvent::Started {
            numerics: numerics(required(started.numerics, "started.numerics")?),
            resumed_from_step: started.resumed_from_step,
        },
        Kind::CheckpointRefused(refused) => ReportEvent::CheckpointRefused {
            manifest_key: refused.manifest_key,
            reason: refused.reason,
        },
    })
}

fn log_line(line: v1::LogLine) -> Result<ReportEvent, DecodeError> {
    let level = LogLevel::from_label(&line.level)
        .ok_or(DecodeError::Label { field: "log.level", label: line.level })?;
    let mut text = line.text;
    if text.len() > MAX_LOG_BYTES {
        text.truncate(text.floor_char_boundary(MAX_LOG_BYTES));
    }
    let at_ms = i64::try_from(line.at_ms).unwrap_or(i64::MAX);
    Ok(ReportEvent::Log { at_ms, level, text })
}

fn artifact(
    reference: Option<v1::ArtifactRef>,
    field: &'static str,
) -> Result<Artifact, DecodeError> {
    let reference = required(reference, field)?;
    let hash = content_hash(&reference.hash, field)?;
    Ok(Artifact { key: reference.key, hash, n_bytes: reference.n_bytes })
}

fn numerics(found: v1::Numerics) -> Numerics {
    Numerics {
        device_kind: found.device_kind,
        intra_op_threads: found.intra_op_threads,
        micro_batch_sequences: found.micro_batch_sequences,
        cpu_capability: found.cpu_capability,
        libtorch_version: found.libtorch_version,
    }
}
