//! References inside a JSON schema.

use crate::chat::Json;

/// The target of a reference `#` or `#/...` without escapes.
pub(crate) fn target<'a>(root: &'a Json, reference: &str) -> Option<&'a Json> {
    if reference == "#" {
        return Some(root);
    }
    let pointer = reference.strip_prefix("#/").filter(|pointer| !pointer.contains(['~', '%']))?;
    pointer.split('/').try_fold(root, |value, key| match value {
        Json::Array(items) => items.get(key.parse::<usize>().ok()?),
        value => value.get(key),
    })
}
