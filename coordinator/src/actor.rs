//! Who asks for a change, for the audit trail.
//!
//! The edges say it once for everything that a request does; a store reads it where it takes a
//! command. What nobody asked for, such as the end of a lease, the coordinator does.

use std::fmt;
use std::future::Future;

use domain::ids::WorkerId;

/// The header in which a program says who uses it, where the token does not.
pub const USER_HEADER: &str = "gradus-user";

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Actor {
    /// The coordinator of its own accord.
    #[default]
    Coordinator,
    /// A user: by his token, or as he says; empty when he says nothing.
    User(String),
    /// A worker.
    Worker(WorkerId),
}

impl Actor {
    /// The name of the user who asks; empty when it is none, or one without a name.
    pub fn user(&self) -> &str {
        match self {
            Self::User(name) => name,
            Self::Coordinator | Self::Worker(_) => "",
        }
    }
}

/// As the store has it: `coordinator`, `user NAME`, `user` or `worker ID`.
impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator => f.write_str("coordinator"),
            Self::User(name) if name.is_empty() => f.write_str("user"),
            Self::User(name) => write!(f, "user {name}"),
            Self::Worker(worker) => write!(f, "worker {worker}"),
        }
    }
}

tokio::task_local! {
    static ACTOR: Actor;
}

/// Everything that this does, `actor` asks for.
pub async fn acting<F: Future>(actor: Actor, what: F) -> F::Output {
    ACTOR.scope(actor, what).await
}

/// Who asks for what is being done.
pub fn current() -> Actor {
    ACTOR.try_with(Clone::clone).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_nobody_asks_for_the_coordinator_does() {
        assert_eq!(current().to_string(), "coordinator");
        let said = acting(Actor::User("ada".into()), async { current().to_string() }).await;
        assert_eq!(said, "user ada");
        let worker = Actor::Worker("w_1".parse().unwrap());
        assert_eq!(acting(worker, async { current().to_string() }).await, "worker w_1");
        assert_eq!(Actor::User(String::new()).to_string(), "user");
    }
}
