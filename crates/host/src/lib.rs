//! One warm Blender: started, spoken to, killed, never believed
