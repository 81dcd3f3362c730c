//! The process that plans and leases: store, scheduler, reconcilers, gRPC for workers, HTTP for everyone.
