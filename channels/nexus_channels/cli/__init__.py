"""The terminal: `nexus` for those who use an application, `dataflow` for those who develop one."""
