//! Setters common to all kinds of requests.

/// The setters of `model`, `priority`, `timeout` and `user_id`, inside the `impl` of a request.
macro_rules! request_setters {
    () => {
        /// Sets the name of the model.
        #[must_use]
        pub fn model(mut self, name: impl Into<String>) -> Self {
            self.model = Some(name.into());
            self
        }

        /// Sets the priority class.
        #[must_use]
        pub fn priority(mut self, priority: $crate::priority::Priority) -> Self {
            self.priority = priority;
            self
        }

        /// Sets the time limit, measured from submission.
        #[must_use]
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.timeout = Some(timeout);
            self
        }

        /// Sets `user`, the name that the fair queue accounts the request to.
        #[must_use]
        pub fn user_id(mut self, user: impl Into<String>) -> Self {
            self.user = Some(user.into());
            self
        }
    };
}

pub(crate) use request_setters;
