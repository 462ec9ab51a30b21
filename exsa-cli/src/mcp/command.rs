//! Command lines of MCP servers.

use crate::error::CliError;

/// Splits a command line into words. Both kinds of quotes group words with blanks; no other character is
/// special, since no shell is involved.
pub(super) fn words(line: &str) -> Result<Vec<String>, CliError> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match quote {
            Some(end) if c == end => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    match (quote, words.is_empty()) {
        (Some(quote), _) => {
            Err(CliError::Usage(format!("--mcp: the quote {quote} is not closed in: {line}")))
        }
        (None, true) => Err(CliError::Usage("--mcp needs a command, such as: python3 server.py".into())),
        (None, false) => Ok(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_command_lines() {
        assert_eq!(words("npx -y server  /tmp").unwrap(), ["npx", "-y", "server", "/tmp"]);
        assert_eq!(
            words(r#"run "a b" 'it "is"' '' x"y z""#).unwrap(),
            ["run", "a b", "it \"is\"", "", "xy z"]
        );
        assert_eq!(words(r"C:\tools\s.exe $HOME;ls").unwrap(), [r"C:\tools\s.exe", "$HOME;ls"]);
        assert!(words("run 'a").unwrap_err().to_string().contains("not closed"));
        assert!(words("  ").is_err());
    }
}
