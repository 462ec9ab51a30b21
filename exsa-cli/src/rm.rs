//! `exsa rm`: deletes downloaded models.

use crate::args::RmArgs;
use crate::error::CliError;
use crate::hub;
use crate::output::bytes;
use exsa_hub::{Removed, Source};

/// Runs the command.
pub(crate) fn rm(args: &RmArgs) -> Result<(), CliError> {
    let hub = hub::cache()?;
    let sources = args.sources.iter().map(|text| text.parse()).collect::<Result<Vec<Source>, _>>()?;
    for source in &sources {
        say(&hub.remove(source)?);
    }
    if args.incomplete {
        say(&hub.remove_incomplete()?);
    }
    Ok(())
}

fn say(removed: &Removed) {
    for file in &removed.files {
        println!("deleted {}", file.display());
    }
    println!("freed {}", bytes(removed.bytes));
}
