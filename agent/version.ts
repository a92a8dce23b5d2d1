/** The agent's version, told in hello and `agent-started`. */
export const AGENT_VERSION = '0.1.0'
