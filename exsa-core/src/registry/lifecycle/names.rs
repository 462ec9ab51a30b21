//! Names and aliases of models.

use super::{Entry, Lifecycle, ModelSettings, Rest};
use crate::registry::error::RegistryError;
use crate::registry::event::RegistryEvent;
use crate::registry::state::{ModelCounters, ModelState};
use std::sync::Arc;
use std::time::Duration;

impl<H: Clone> Lifecycle<H> {
    /// Adds an unloaded model.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Name`] for a name or alias that is empty or in use.
    pub fn add(&mut self, name: Arc<str>, settings: ModelSettings) -> Result<(), RegistryError> {
        self.check_open()?;
        self.check_name(&name)?;
        self.check_aliases(&name, &settings.aliases)?;
        self.insert_aliases(&name, &settings.aliases);
        self.emit(RegistryEvent::Added { model: name.clone() });
        let entry = Entry {
            settings,
            current: None,
            pending: None,
            rest: Rest::Unloaded,
            refused: None,
            unload_waiters: Vec::new(),
            counters: ModelCounters::default(),
            shown: ModelState::Unloaded,
        };
        self.models.insert(name, entry);
        Ok(())
    }

    /// Replaces the settings of a model.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Name`] for an alias that is empty or in use.
    pub fn configure(&mut self, model: &str, settings: ModelSettings) -> Result<(), RegistryError> {
        self.check_open()?;
        let name = self.resolve(model)?;
        self.check_aliases(&name, &settings.aliases)?;
        self.aliases.retain(|_, known| *known != name);
        self.insert_aliases(&name, &settings.aliases);
        if let Some(entry) = self.models.get_mut(&name) {
            entry.settings = settings;
            entry.refused = None;
        }
        Ok(())
    }

    /// Changes the settings of a model except its aliases.
    ///
    /// # Errors
    ///
    /// [`RegistryError::UnknownModel`].
    pub fn change(
        &mut self,
        model: &str,
        change: impl FnOnce(&mut ModelSettings),
    ) -> Result<(), RegistryError> {
        let name = self.resolve(model)?;
        if let Some(entry) = self.models.get_mut(&name) {
            let aliases = entry.settings.aliases.clone();
            change(&mut entry.settings);
            entry.settings.aliases = aliases;
        }
        Ok(())
    }

    /// Overrides the idle timeout of the ready instance. Returns whether there is one.
    ///
    /// # Errors
    ///
    /// [`RegistryError::UnknownModel`].
    pub fn keep_alive(&mut self, model: &str, time: Option<Duration>) -> Result<bool, RegistryError> {
        let name = self.resolve(model)?;
        let current = self.models.get(&name).and_then(|entry| entry.current);
        let instance = current.and_then(|id| self.instances.get_mut(&id));
        Ok(instance.map(|instance| instance.keep_alive = Some(time)).is_some())
    }

    /// Removes a model without instances.
    ///
    /// # Errors
    ///
    /// [`RegistryError::State`] if an instance of the model is in memory.
    pub fn remove(&mut self, model: &str) -> Result<Arc<str>, RegistryError> {
        let name = self.resolve(model)?;
        if self.instances.values().any(|instance| instance.model == name) {
            return Err(self.wrong_state("remove", &name, "unloaded, sleeping or failed"));
        }
        self.models.remove(&name);
        self.aliases.retain(|_, known| *known != name);
        if self.chosen.as_ref() == Some(&name) {
            self.chosen = None;
        }
        self.emit(RegistryEvent::Removed { model: name.clone() });
        Ok(name)
    }

    /// Name of the model with this name or alias.
    ///
    /// # Errors
    ///
    /// [`RegistryError::UnknownModel`].
    pub fn resolve(&self, model: &str) -> Result<Arc<str>, RegistryError> {
        let name = self.models.get_key_value(model).map(|(name, _)| name).or_else(|| self.aliases.get(model));
        name.cloned()
            .ok_or_else(|| RegistryError::UnknownModel { model: model.to_owned(), available: self.names() })
    }

    /// Names of all models.
    pub fn names(&self) -> Vec<String> {
        self.models.keys().map(|name| name.to_string()).collect()
    }

    pub(super) fn check_name(&self, name: &str) -> Result<(), RegistryError> {
        let problem = if name.is_empty() {
            "it is empty"
        } else if self.models.contains_key(name) {
            "it is the name of another model"
        } else if self.aliases.contains_key(name) {
            "it is the alias of another model"
        } else {
            return Ok(());
        };
        Err(RegistryError::Name { name: name.to_owned(), problem })
    }

    /// Checks aliases of the model `name`, which may already have them.
    pub(super) fn check_aliases(&self, name: &Arc<str>, aliases: &[Arc<str>]) -> Result<(), RegistryError> {
        for (i, alias) in aliases.iter().enumerate() {
            if alias == name || aliases[..i].contains(alias) {
                let problem = "it is listed twice";
                return Err(RegistryError::Name { name: alias.to_string(), problem });
            }
            if self.aliases.get(alias) != Some(name) {
                self.check_name(alias)?;
            }
        }
        Ok(())
    }

    pub(super) fn insert_aliases(&mut self, name: &Arc<str>, aliases: &[Arc<str>]) {
        self.aliases.extend(aliases.iter().map(|alias| (alias.clone(), name.clone())));
    }
}
