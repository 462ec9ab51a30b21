//! Quantizations in file names, and the selection among the models of a repository.

use crate::error::HubError;
use crate::source::Pick;

/// Default quantizations, best choice first.
const USUAL: [&str; 20] = [
    "Q4_K_M", "Q4_0", "Q8_0", "Q4_K_S", "Q5_K_M", "Q5_K_S", "Q6_K", "Q4_1", "Q5_0", "Q5_1", "MXFP4",
    "IQ4_XS", "IQ4_NL", "Q3_K_M", "Q3_K_L", "Q3_K_S", "Q2_K", "F16", "BF16", "F32",
];

/// A model of a repository: one file, or the files of a split one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// Paths in the repository, in the order of the parts.
    pub files: Vec<String>,
    /// Quantization from the name, in capitals.
    pub quant: Option<String>,
    /// Number of parts that the names state.
    pub parts: usize,
}

/// Returns the quantization in a file name, in capitals: `Q4_K_M` of `model-q4_k_m.gguf`.
///
/// ```
/// assert_eq!(exsa_hub::quantization("SmolLM2-135M-Instruct.Q4_K_M.gguf").as_deref(), Some("Q4_K_M"));
/// assert_eq!(exsa_hub::quantization("model.gguf"), None);
/// ```
#[must_use]
pub fn quantization(file: &str) -> Option<String> {
    let name = file.rsplit('/').next().unwrap_or(file);
    let stem = split_part(name).map_or_else(|| strip_gguf(name).unwrap_or(name), |part| part.base);
    let words: Vec<&str> = stem.split(['-', '.']).collect();
    let at = words.iter().rposition(|word| is_quantization(&word.to_ascii_uppercase()))?;
    let quant = words[at].to_ascii_uppercase();
    // Unsloth's dynamic types differ from the types that they are named after.
    let dynamic = at > 0 && words[at - 1].eq_ignore_ascii_case("UD");
    Some(if dynamic { format!("UD-{quant}") } else { quant })
}

fn is_quantization(word: &str) -> bool {
    if matches!(word, "F16" | "F32" | "BF16" | "FP16" | "FP32" | "MXFP4" | "NVFP4" | "MXFP4_MOE") {
        return true;
    }
    let rest = word.strip_prefix("IQ").or_else(|| word.strip_prefix("TQ")).or_else(|| word.strip_prefix('Q'));
    let mut chars = rest.unwrap_or_default().chars();
    chars.next().is_some_and(|c| c.is_ascii_digit())
        && chars.next().is_none_or(|c| c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Returns the models in a file list, without projectors, importance matrices and other files.
pub(crate) fn groups<'a>(files: impl IntoIterator<Item = &'a str>) -> Vec<Group> {
    let mut groups: Vec<(String, Group)> = Vec::new();
    let mut files: Vec<&str> = files.into_iter().filter(|file| is_model(file)).collect();
    files.sort_unstable();
    for file in files {
        let (key, parts) = match split_part(file) {
            Some(part) => (format!("{}/{}", part.base, part.of), part.of),
            None => (file.to_owned(), 1),
        };
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, group)) => group.files.push(file.to_owned()),
            None => {
                groups.push((key, Group { files: vec![file.to_owned()], quant: quantization(file), parts }))
            }
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

/// Returns the selected group.
///
/// # Errors
///
/// No group or several match, or parts of the model are missing.
pub(crate) fn choose<'a>(repo: &str, groups: &'a [Group], pick: &Pick) -> Result<&'a Group, HubError> {
    let no_match =
        |problem: String, choices: Vec<String>| HubError::NoMatch { repo: repo.to_owned(), problem, choices };
    let several = |problem: String, choices| HubError::Ambiguous { repo: repo.to_owned(), problem, choices };
    let chosen = match pick {
        Pick::File(file) => groups.iter().find(|group| group.files.contains(file)).ok_or_else(|| {
            no_match(
                format!("has no model '{file}'"),
                groups.iter().map(|group| group.files[0].clone()).collect(),
            )
        })?,
        _ if groups.is_empty() => return Err(HubError::NoModel(repo.to_owned())),
        Pick::Quant(quant) => {
            let quant = quant.to_ascii_uppercase();
            let named: Vec<_> =
                groups.iter().filter(|group| group.quant.as_deref() == Some(quant.as_str())).collect();
            one(&named).ok_or_else(|| match named.is_empty() {
                true => no_match(format!("has no model of quantization {quant}"), choices(groups)),
                false => {
                    several(format!("has several models of quantization {quant}; name a file"), names(&named))
                }
            })?
        }
        Pick::Usual => {
            let of =
                |quant: &&str| groups.iter().filter(|group| group.quant.as_deref() == Some(*quant)).collect();
            let usual: Option<Vec<_>> = USUAL.iter().map(of).find(|found: &Vec<_>| !found.is_empty());
            let candidates = usual.unwrap_or_else(|| groups.iter().collect());
            one(&candidates)
                .ok_or_else(|| several("has several models; name one".into(), names(&candidates)))?
        }
    };
    if chosen.files.len() != chosen.parts {
        let (found, parts) = (chosen.files.len(), chosen.parts);
        return Err(no_match(
            format!("has {found} of the {parts} files of a split model"),
            chosen.files.clone(),
        ));
    }
    Ok(chosen)
}

fn one<'a>(groups: &[&'a Group]) -> Option<&'a Group> {
    match groups {
        [group] => Some(*group),
        _ => None,
    }
}

fn names(groups: &[&Group]) -> Vec<String> {
    groups.iter().map(|group| group.files[0].clone()).collect()
}

/// Returns the quantizations of the groups, or the file of a group without one.
fn choices(groups: &[Group]) -> Vec<String> {
    let mut choices: Vec<_> =
        groups.iter().map(|group| group.quant.clone().unwrap_or_else(|| group.files[0].clone())).collect();
    choices.sort();
    choices.dedup();
    choices
}

/// Returns the projector in a file list, preferring f16.
pub(crate) fn projector<'a>(files: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let rank = |file: &&str| {
        let quant = quantization(file);
        let order = ["F16", "FP16", "BF16", "Q8_0", "F32", "FP32"];
        let rank = order.iter().position(|name| quant.as_deref() == Some(*name)).unwrap_or(order.len());
        (rank, (*file).to_owned())
    };
    files.into_iter().filter(|file| strip_gguf(file).is_some() && is_projector(file)).min_by_key(rank)
}

fn is_projector(file: &str) -> bool {
    file.rsplit('/').next().is_some_and(|name| name.to_ascii_lowercase().contains("mmproj"))
}

fn is_model(file: &str) -> bool {
    strip_gguf(file).is_some() && !is_projector(file) && !file.to_ascii_lowercase().contains("imatrix")
}

fn strip_gguf(name: &str) -> Option<&str> {
    let at = name.len().checked_sub(5)?;
    name.get(at..).filter(|end| end.eq_ignore_ascii_case(".gguf")).map(|_| &name[..at])
}

/// A part of a split model.
struct Part<'a> {
    /// The name before the part numbers.
    base: &'a str,
    /// Number of parts.
    of: usize,
}

/// Parses a name that ends in `-00001-of-00003.gguf`.
fn split_part(name: &str) -> Option<Part<'_>> {
    let (rest, of) = strip_gguf(name)?.rsplit_once("-of-")?;
    let (base, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let of: usize = of.parse().ok().filter(|_| digits(of))?;
    let number: usize = number.parse().ok().filter(|_| digits(number))?;
    (1..=of).contains(&number).then_some(Part { base, of })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantizations_of_published_names() {
        for (file, quant) in [
            ("SmolLM2-135M-Instruct-Q4_K_M.gguf", Some("Q4_K_M")),
            ("smollm2-135m-instruct-q8_0.gguf", Some("Q8_0")),
            ("SmolLM2-135M-Instruct.Q4_1.gguf", Some("Q4_1")),
            ("Qwen3-0.6B-UD-Q4_K_XL.gguf", Some("UD-Q4_K_XL")),
            ("x-IQ2_XXS.gguf", Some("IQ2_XXS")),
            ("TriLM-TQ1_0.gguf", Some("TQ1_0")),
            ("gpt-oss-20b-mxfp4.gguf", Some("MXFP4")),
            ("BF16/Qwen3-235B-BF16-00001-of-00010.gguf", Some("BF16")),
            ("Qwen3-4B-f16.gguf", Some("F16")),
            ("Q6_K.gguf", Some("Q6_K")),
            ("model.gguf", None),
            ("Qwen2.5-7B.gguf", None),
            ("Q-model.gguf", None),
        ] {
            assert_eq!(quantization(file).as_deref(), quant, "{file}");
        }
    }

    fn repo(files: &[&str]) -> Vec<Group> {
        groups(files.iter().copied())
    }

    fn chosen(files: &[&str], pick: Pick) -> Result<Vec<String>, String> {
        choose("o/r", &repo(files), &pick).map(|group| group.files.clone()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_usual_quantization_is_taken() {
        let files =
            ["README.md", "m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-F16.gguf", "mmproj-m-f16.gguf", "imatrix.gguf"];
        assert_eq!(chosen(&files, Pick::Usual).unwrap(), ["m-Q4_K_M.gguf"]);
        assert_eq!(chosen(&files[1..2], Pick::Usual).unwrap(), ["m-Q8_0.gguf"]);
        assert_eq!(chosen(&["only.gguf"], Pick::Usual).unwrap(), ["only.gguf"]);
        assert!(chosen(&["README.md"], Pick::Usual).unwrap_err().contains("-GGUF"));
        let several = chosen(&["a.gguf", "b.gguf"], Pick::Usual).unwrap_err();
        assert!(several.contains("a.gguf, b.gguf"), "{several}");
    }

    #[test]
    fn quantizations_match_exactly() {
        let files = ["m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-UD-Q4_K_XL.gguf"];
        let quant = |name: &str| chosen(&files, Pick::Quant(name.into()));
        assert_eq!(quant("q4_k_s").unwrap(), ["m-Q4_K_S.gguf"]);
        assert_eq!(quant("UD-Q4_K_XL").unwrap(), ["m-UD-Q4_K_XL.gguf"]);
        for wrong in ["Q4_K", "Q4", "Q8_0"] {
            let error = quant(wrong).unwrap_err();
            assert!(error.contains("Q4_K_M, Q4_K_S, UD-Q4_K_XL"), "{error}");
        }
        let two = chosen(&["a-Q8_0.gguf", "b-Q8_0.gguf"], Pick::Quant("Q8_0".into())).unwrap_err();
        assert!(two.contains("name a file") && two.contains("a-Q8_0.gguf"), "{two}");
    }

    #[test]
    fn split_models_are_whole() {
        let files = [
            "Q8_0/m-Q8_0-00002-of-00002.gguf",
            "Q8_0/m-Q8_0-00001-of-00002.gguf",
            "x-Q4_0-00001-of-00003.gguf",
        ];
        let whole = ["Q8_0/m-Q8_0-00001-of-00002.gguf", "Q8_0/m-Q8_0-00002-of-00002.gguf"];
        assert_eq!(chosen(&files, Pick::Quant("Q8_0".into())).unwrap(), whole);
        assert_eq!(chosen(&files, Pick::File(whole[1].into())).unwrap(), whole);
        let missing = chosen(&files, Pick::Quant("Q4_0".into())).unwrap_err();
        assert!(missing.contains("1 of the 3 files"), "{missing}");
        // Hostile numbers are treated as ordinary names, or as missing parts.
        for name in
            ["m-00000-of-00002.gguf", "m-00003-of-00002.gguf", "m-1-of-2.gguf", "m-+0001-of-00002.gguf"]
        {
            assert_eq!(chosen(&[name], Pick::Usual).unwrap(), [name]);
        }
    }

    #[test]
    fn projectors_in_f16_first() {
        let files = ["mmproj-BF16.gguf", "mmproj-F16.gguf", "mmproj-F32.gguf", "m-Q8_0.gguf", "mmproj.txt"];
        assert_eq!(projector(files), Some("mmproj-F16.gguf"));
        assert_eq!(projector(["m-mmproj.gguf"]), Some("m-mmproj.gguf"));
        assert_eq!(projector(["m.gguf"]), None);
    }
}
