//! The client's questions and orders about configurations.

use crate::client::{Client, ClientError, percent_encoded};
use crate::config::{
    ConfigCommandRequest, ConfigCommandResponse, ConfigResponse, ConfigTextResponse,
};

impl Client {
    /// What was applied, and what is in force.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn config(&self) -> Result<ConfigResponse, ClientError> {
        self.get("/v1/config").map_err(|error| self.known(error))
    }

    /// The text of an entry by its number, of `running` or of `file`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn config_text(&self, entry: &str) -> Result<ConfigTextResponse, ClientError> {
        self.get(&format!("/v1/config/{}", percent_encoded(entry)))
            .map_err(|error| self.known(error))
    }

    /// Applies, confirms or goes back.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn config_command(
        &self,
        request: &ConfigCommandRequest,
    ) -> Result<ConfigCommandResponse, ClientError> {
        self.post("/v1/config/command", request)
            .map_err(|error| self.known(error))
    }
}
