//! Guide by task. Each page is a module without items.

#[doc = include_str!("../guide/desktop.md")]
pub mod desktop {}

#[doc = include_str!("../guide/service.md")]
pub mod service {}

#[doc = include_str!("../guide/threads.md")]
pub mod threads {}

#[doc = include_str!("../guide/memory.md")]
pub mod memory {}

#[doc = include_str!("../guide/users.md")]
pub mod users {}

#[doc = include_str!("../guide/backends.md")]
pub mod backends {}

#[doc = include_str!("../guide/tuning.md")]
pub mod tuning {}
