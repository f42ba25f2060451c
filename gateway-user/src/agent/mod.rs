//! See DESIGN: agent.
