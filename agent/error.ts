/** Something a person can mend; its message says how. */
export class AgentError extends Error {}
