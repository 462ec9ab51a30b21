//! Setters that all kinds of requests have.

/// The setters of `model`, `priority`, `timeout` and `user_id`, inside the `impl` of a request.
macro_rules! request_setters {
    () => {
        /// Sets the name of the model.
        #[must_use]
        pub fn model(mut self, name: impl Into<String>) -> Self {
            self.model = Some(name.into());
            self
        }

        /// Sets how urgent the request is.
        #[must_use]
        pub fn priority(mut self, priority: $crate::priority::Priority) -> Self {
            self.priority = priority;
            self
        }

        /// Ends the request when `timeout` has passed since it was submitted.
        #[must_use]
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.timeout = Some(timeout);
            self
        }

        /// Sets `user`, the name by which the scheduler shares the engine fairly.
        #[must_use]
        pub fn user_id(mut self, user: impl Into<String>) -> Self {
            self.user = Some(user.into());
            self
        }
    };
}

pub(crate) use request_setters;
