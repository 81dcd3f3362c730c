//! The artifact store of the simulation: objects of which each writer's machine may lose or tear
//! those that were not synced when its power fails.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::cell::Identity;
use domain::ids::ContentHash;
use domain::recipe::CellConfig;
use futures::FutureExt as _;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use proto::v1;

use crate::chance::Chance;

/// What training has come to: a number that every step changes, so that a resumed run equals an
/// undisturbed one only if it really continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) step: u64,
    value: u64,
}

impl Chain {
    /// After the next step.
    #[must_use]
    fn next(self) -> Self {
        let step = self.step + 1;
        let mixed = self.value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step);
        Self { step, value: mixed ^ (mixed >> 29) }
    }

    /// The loss that a run reports here: it tells apart whatever the state tells apart.
    pub(crate) fn loss(self) -> f64 {
        (self.value >> 11) as f64 / (1_u64 << 52) as f64
    }

    /// What an evaluation of these weights measures.
    pub(crate) fn measured(self) -> f64 {
        self.loss() + 10.0
    }

    pub(crate) fn hash(self) -> ContentHash {
        ContentHash::of(format!("{}:{}", self.step, self.value).as_bytes())
    }
}

/// How the chain of a run goes: its first steps are its trunk's, the others its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Course {
    of_trunk: u64,
    trunk_steps: u64,
    of_run: u64,
}

impl Course {
    /// The course of the run with this configuration.
    pub(crate) fn of(config_json: &str) -> Self {
        let of_run = number(&ContentHash::of(config_json.as_bytes()));
        let config = Identity::parse(config_json).expect("a planned configuration");
        let CellConfig::Pretrain(cell) = config;
        match cell.trunk().expect("it has an identity") {
            Some(trunk) => Self { of_trunk: number(&trunk.hash), trunk_steps: trunk.steps, of_run },
            None => Self { of_trunk: of_run, trunk_steps: 0, of_run },
        }
    }

    /// Before the first step.
    pub(crate) fn start(&self) -> Chain {
        Chain { step: 0, value: self.of_trunk }
    }

    /// After the next step.
    pub(crate) fn next(&self, chain: Chain) -> Chain {
        let Chain { step, value } = chain.next();
        let mixed = if step == self.trunk_steps + 1 { value ^ self.of_run } else { value };
        Chain { step, value: mixed }
    }
}

fn number(hash: &ContentHash) -> u64 {
    u64::from_str_radix(&hash.as_str()[..16], 16).expect("a hash is hexadecimal")
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Weights(Chain),
    Manifest { weights_key: String, weights_hash: ContentHash },
    Torn,
}

#[derive(Debug, Clone)]
struct Object {
    content: Content,
    machine: usize,
    is_synced: bool,
}

/// All objects by key.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    objects: BTreeMap<String, Object>,
    /// Their names, where the coordinators can remove them.
    names: Arc<dyn ObjectStore>,
}

/// Why a checkpoint cannot be read whose files a coordinator has removed.
pub(crate) const REMOVED: &str = "was removed";

impl Disk {
    /// Nothing yet; `names` is the coordinators' artifact store.
    pub(crate) fn new(names: Arc<dyn ObjectStore>) -> Self {
        Self { objects: BTreeMap::new(), names }
    }

    /// Writes the two objects of a checkpoint; a loss of power may still take them.
    pub(crate) fn write(&mut self, machine: usize, manifest_key: &str, chain: Chain) {
        let weights_key = format!("{manifest_key}.weights");
        let weights_hash = chain.hash();
        let manifest = Content::Manifest { weights_key: weights_key.clone(), weights_hash };
        self.put(machine, weights_key, Content::Weights(chain));
        self.put(machine, manifest_key.to_owned(), manifest);
    }

    fn put(&mut self, machine: usize, key: String, content: Content) {
        let name = Key::from(key.as_str());
        let put = self.names.put(&name, PutPayload::from_static(b"")).now_or_never();
        put.expect("memory does not wait").expect("memory takes it");
        self.objects.insert(key, Object { content, machine, is_synced: false });
    }

    /// Makes a written checkpoint durable.
    pub(crate) fn sync(&mut self, manifest_key: &str) {
        for key in [manifest_key.to_owned(), format!("{manifest_key}.weights")] {
            if let Some(object) = self.objects.get_mut(&key) {
                object.is_synced = true;
            }
        }
    }

    /// The power of a machine fails.
    pub(crate) fn lose_power(&mut self, machine: usize, chance: &mut Chance) {
        self.objects.retain(|_, object| {
            if object.machine != machine || object.is_synced {
                return true;
            }
            object.content = Content::Torn;
            object.is_synced = true;
            chance.permille(500)
        });
    }

    /// Damages a manifest of which nothing but a resume depends, whoever wrote it.
    pub(crate) fn damage(&mut self, chance: &mut Chance) {
        let keys: Vec<String> =
            self.objects.keys().filter(|key| key.ends_with("rolling")).cloned().collect();
        if keys.is_empty() {
            return;
        }
        let key = chance.one_of(&keys);
        if let Some(object) = self.objects.get_mut(key) {
            object.content = Content::Torn;
        }
    }

    /// Reads a checkpoint as a trainer does: nothing that is not what its hashes say.
    pub(crate) fn read(&self, manifest: &v1::ArtifactRef) -> Result<Chain, String> {
        let Some(object) = self.objects.get(&manifest.key) else {
            return Err(format!("`{}` is not there", manifest.key));
        };
        let name = Key::from(manifest.key.as_str());
        if self.names.head(&name).now_or_never().expect("memory does not wait").is_err() {
            return Err(format!("`{}` {REMOVED}", manifest.key));
        }
        let Content::Manifest { weights_key, weights_hash } = &object.content else {
            return Err(format!("`{}` is torn", manifest.key));
        };
        match self.objects.get(weights_key).map(|object| &object.content) {
            Some(Content::Weights(chain)) if chain.hash() == *weights_hash => Ok(*chain),
            _ => Err(format!("`{weights_key}` is not what its hash says")),
        }
    }
}
