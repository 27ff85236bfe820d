"""What the backend openvino is made of: the runner of its engines, and the shapes that they take."""
