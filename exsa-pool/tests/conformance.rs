//! The contract of generators on pools.
#![allow(clippy::unwrap_used)]

use exsa_conformance::generators::GeneratorFixture;
use exsa_core::scripted::ScriptedModel;
use exsa_core::{Engine, EngineOptions};
use exsa_pool::{Member, Pool, PoolOptions};
use std::sync::Arc;

fn pool(members: usize, in_flight_max: usize) -> Pool {
    let pool = Pool::new(PoolOptions::new()).unwrap();
    for i in 0..members {
        let model = ScriptedModel::ngram(1).order(usize::MAX).context(512).shared();
        let engine = Engine::start(model, EngineOptions::default()).unwrap();
        pool.add(Member::new(i.to_string(), Arc::new(engine)).in_flight_max(in_flight_max));
    }
    pool
}

fn nested() -> Pool {
    let outer = Pool::new(PoolOptions::new()).unwrap();
    outer.add(Member::new("left", Arc::new(pool(2, 4))));
    outer.add(Member::new("right", Arc::new(pool(1, 1))));
    outer
}

exsa_conformance::mount_generator! {
    one: GeneratorFixture::new(pool(1, 64)).identical(),
    narrow: GeneratorFixture::new(pool(1, 1)).identical(),
    three: GeneratorFixture::new(pool(3, 4)).identical(),
    nested: GeneratorFixture::new(nested()).identical(),
}
