//! The suite that every backend of the store must pass: functions over a store that can make
//! itself for a test, stamped out by [`conformance!`], one test for each.
//!
//! What only one backend has (files, migrations) is tested beside it.

pub(in crate::store) mod applying;
pub(in crate::store) mod fixture;
pub(in crate::store) mod leasing;
pub(in crate::store) mod races;
pub(in crate::store) mod reporting;

/// One test for each function of the suite, on the backend that the factory makes.
macro_rules! conformance {
    ($factory:ident: $($module:ident { $($name:ident),* $(,)? })*) => {
        $($(
            #[tokio::test]
            async fn $name() {
                crate::store::conformance::$module::$name(
                    &crate::store::conformance::fixture::Fixture::new($factory().await),
                )
                .await;
            }
        )*)*
    };
}

pub(in crate::store) use conformance;
