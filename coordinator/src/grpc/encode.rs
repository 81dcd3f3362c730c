//! From the store's answers to the wire. Cannot fail.
//!
//! It leaves nothing out.

use proto::v1;

use crate::leader::{Directive, PREEMPT_DEADLINE_MS};
use crate::store::{Artifact, Assignment, AssignmentDetails, Numerics, TrainDetails};

pub(super) fn assignment(assignment: Assignment) -> v1::Assignment {
    let rendezvous = assignment.rendezvous();
    v1::Assignment {
        lease_token: assignment.token.0,
        work_id: assignment.work.to_string(),
        attempt: assignment.attempt.0,
        rank: assignment.rank,
        world_size: assignment.world_size,
        rendezvous,
        work: Some(work(assignment.details)),
    }
}

fn work(details: AssignmentDetails) -> v1::assignment::Work {
    use v1::assignment::Work;
    match details {
        AssignmentDetails::Train(details) => Work::Train(train(*details)),
        AssignmentDetails::Evaluate {
            config_json,
            cell_config_json,
            checkpoint_manifest,
            data_manifest,
        } => Work::Evaluate(v1::Evaluate {
            config_json,
            cell_config_json,
            checkpoint_manifest: Some(artifact(checkpoint_manifest)),
            data_manifest: Some(artifact(data_manifest)),
        }),
        AssignmentDetails::Prepare { config_json, sources } => {
            let sources = sources.into_iter().map(artifact).collect();
            Work::PrepareData(v1::PrepareData { config_json, sources })
        }
    }
}

fn train(details: TrainDetails) -> v1::Train {
    v1::Train {
        config_json: details.config_json,
        data_manifest: Some(artifact(details.data_manifest)),
        micro_batch_sequences: details.micro_batch_sequences,
        data_point_steps: details.data_point_steps,
        rolling_checkpoint_seconds: details.rolling_checkpoint_seconds,
        checkpoints: details
            .checkpoints
            .into_iter()
            .map(|offered| v1::CheckpointRef {
                step: offered.step,
                manifest: Some(artifact(offered.manifest)),
                has_failed: offered.has_failed,
            })
            .collect(),
        numerics: details.numerics.map(numerics),
        branch_step: details.branch_step.unwrap_or(0),
    }
}

fn artifact(artifact: Artifact) -> v1::ArtifactRef {
    let hash = artifact.hash.to_string();
    v1::ArtifactRef { key: artifact.key, hash, n_bytes: artifact.n_bytes }
}

fn numerics(numerics: Numerics) -> v1::Numerics {
    v1::Numerics {
        device_kind: numerics.device_kind,
        intra_op_threads: numerics.intra_op_threads,
        micro_batch_sequences: numerics.micro_batch_sequences,
        cpu_capability: numerics.cpu_capability,
        libtorch_version: numerics.libtorch_version,
    }
}

pub(super) fn directive(directive: Directive) -> v1::Directive {
    use v1::directive::Kind;
    let kind = match directive {
        Directive::Stop { token } => Kind::Stop(v1::StopAttempt {
            lease_token: token.0,
            reason: "its lease has ended".to_owned(),
        }),
        Directive::Preempt { token } => Kind::Preempt(v1::PreemptAttempt {
            lease_token: token.0,
            deadline_ms: PREEMPT_DEADLINE_MS,
        }),
        Directive::Drain => Kind::Drain(v1::Drain {}),
    };
    v1::Directive { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use domain::ids::{AttemptNumber, ContentHash, LeaseToken};
    use domain::recipe::{MAX_SOURCE_FILES, PREPARATION_VERSION, PreparationConfig, SourceConfig};
    use domain::spec::{CorpusFormat, TokenizerSpec};

    use super::*;

    /// Aim: whatever is planned can be handed over.
    #[test]
    fn a_preparation_of_the_most_files_fits_into_a_message() {
        let file = |number: usize| {
            let hash = ContentHash::of(&number.to_le_bytes());
            Artifact { key: format!("sources/{hash}"), hash, n_bytes: u64::MAX }
        };
        let sources: Vec<Artifact> = (0..MAX_SOURCE_FILES).map(file).collect();
        let config = PreparationConfig {
            preparation_version: PREPARATION_VERSION,
            sources: vec![SourceConfig {
                format: CorpusFormat::Text,
                text_field: "text".to_owned(),
                file_hashes: sources.iter().map(|source| source.hash.to_string()).collect(),
            }],
            tokenizer: TokenizerSpec::Byte,
            validation_fraction: 0.1,
            seed: u32::MAX,
        };
        let config_json = config.identity().unwrap().canonical_json;
        let given = assignment(Assignment {
            token: LeaseToken(u64::MAX),
            work: "p_1".parse().unwrap(),
            attempt: AttemptNumber(1),
            rank: 0,
            world_size: 1,
            details: AssignmentDetails::Prepare { config_json, sources },
        });
        let answer = v1::NextResponse { assignments: vec![given], directives: Vec::new() };
        let n_bytes = proto::n_bytes(&answer);
        assert!(n_bytes < proto::MAX_MESSAGE_BYTES / 10 * 9, "{n_bytes} bytes");
        assert!(n_bytes > proto::MAX_MESSAGE_BYTES / 2, "the limit could be higher: {n_bytes}");
    }
}
