//! Chat templates of full conversations, by topic: rendering, injection, limits. Templates of published
//! models are in `chat_templates.rs`.
#![cfg(feature = "chat-template")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod bytes;
mod choice;
mod continued;
mod injection;
mod limits;
mod markers;
mod messages;
mod templates;
mod tools;
mod user_defined;
