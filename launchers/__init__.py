"""Programs: they put the parts together, on one machine, on many, on arms."""

from armfarm.launchers import opengl

opengl.choose()  # here, since MuJoCo reads the choice when it is imported
